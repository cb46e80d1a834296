//! One request leaves nothing for the next.
