//! The FastCGI protocol on the wire.
