//! FastCGI 1.0: bytes to events and back, without any I/O.
//!
//! An application (we) feeds what it reads to a [`Decoder`] and writes what the functions of [`encoder`] append to a
//! buffer. Relays, the load generator and tests are the other side: they write requests with [`encoder`] too, and read
//! answers with a [`ResponseDecoder`].
//!
//! # What is supported
//!
//! | section of the specification | here |
//! |---|---|
//! | 3.3 records: content of 0 to 65535 bytes, padding of 0 to 255, split and joined anywhere | yes |
//! | 3.3 request ids: several requests open on one connection, their records interleaved | yes |
//! | 3.4 name-value pairs: lengths of one and four bytes, pairs split over records | yes |
//! | 4.1 `FCGI_GET_VALUES` | [`Event::GetValues`]; the caller answers |
//! | 4.2 `FCGI_UNKNOWN_TYPE` | [`Event::UnknownType`]; the caller answers |
//! | 5.1 `FCGI_BEGIN_REQUEST`, `FCGI_KEEP_CONN` | yes |
//! | 5.2 `FCGI_PARAMS` | yes; they arrive as a whole, in [`Event::Request`] |
//! | 5.3 `FCGI_STDIN` | yes, without a copy |
//! | 5.3 `FCGI_DATA` | ignored, no supported role has it |
//! | 5.4 `FCGI_ABORT_REQUEST` | [`Event::Abort`]; the caller answers |
//! | 6.2 Responder | yes |
//! | 6.3 Authorizer | yes, as in php-fpm: a script runs, without a body, and sees the role in `FCGI_ROLE` |
//! | 6.4 Filter and other roles | [`Event::UnknownRole`]; the caller answers `FCGI_UNKNOWN_ROLE` |
//!
//! # Differences from php-fpm
//!
//! php-fpm's main/fastcgi.c has one request per connection at a time and never looks at request ids.
//!
//! * It also runs scripts as Filter, though PHP has no way to read the file (`FCGI_DATA`) which a filter is to filter.
//! * It takes any version from 1 up, and request id 0. Here both are errors: neither exists, and a wrong version is
//!   how HTTP sent to a FastCGI port shows.
//! * It closes the connection where a name-value pair is split over two records, or where content and padding of a
//!   record of params have more than 65535 bytes together. Both are valid, and work here.
//! * It closes the connection on unknown roles and types, on `FCGI_DATA` and on `FCGI_ABORT_REQUEST`. Here they are
//!   answered or ignored as the specification says.
//!
//! Like php-fpm, we take an empty `FCGI_STDIN` as the end of params whose own empty record was left out.

mod decoder;
pub mod encoder;
mod error;
mod params;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod properties;
mod record;
mod response;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use decoder::{Decoder, DecoderLimits, Event};
pub use error::FastcgiError;
pub use record::{HEADER_LEN, MAX_CONTENT, ProtocolStatus, RecordType, Role};
pub use response::{ResponseDecoder, ResponseEvent};
