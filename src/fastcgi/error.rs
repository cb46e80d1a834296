//! What a FastCGI peer can do wrong.

use thiserror::Error;

/// The peer broke the protocol or a limit; its connection cannot go on, since what follows cannot be trusted to start
/// at a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FastcgiError {
    /// A record of another version; most often the peer does not speak FastCGI at all.
    #[error(
        "not FastCGI: a record starts with version {found:#04x} instead of 0x01 (is HTTP being sent to a FastCGI port?)"
    )]
    Version {
        /// The first byte of the record.
        found: u8,
    },
    /// A record that belongs to a request has id 0.
    #[error("a record of type {kind:#04x} has request id 0, which is for management records only")]
    NullRequestId {
        /// The record's type.
        kind: u8,
    },
    /// A `FCGI_BEGIN_REQUEST` of another size than 8 bytes.
    #[error("FCGI_BEGIN_REQUEST of request {id} has {length} bytes instead of 8")]
    BeginLength {
        /// The request.
        id: u16,
        /// Length of the record's content.
        length: usize,
    },
    /// A `FCGI_BEGIN_REQUEST` with the id of a request that is not answered yet.
    #[error("FCGI_BEGIN_REQUEST for request {id}, which is still open")]
    AlreadyOpen {
        /// The request.
        id: u16,
    },
    /// A name or a value is longer than what is left of the stream.
    #[error("malformed FCGI_PARAMS of request {id}: a name-value pair runs past their end")]
    ParamsMalformed {
        /// The request.
        id: u16,
    },
    /// More bytes of params than allowed.
    #[error(
        "FCGI_PARAMS of request {id} have more than {limit} bytes, the limit of limit.params_size (--params-size): \
         raise it, or have the web server send smaller headers"
    )]
    ParamsTooLarge {
        /// The request.
        id: u16,
        /// The limit, in bytes.
        limit: usize,
    },
    /// More pairs of params than allowed.
    #[error(
        "FCGI_PARAMS of request {id} have more than {limit} name-value pairs, the limit of limit.params_count (--params-count): \
         raise it, or have the web server send fewer headers"
    )]
    TooManyParams {
        /// The request.
        id: u16,
        /// The limit, in pairs.
        limit: usize,
    },
    /// Params after the empty record that ends them.
    #[error("FCGI_PARAMS of request {id} go on after their end")]
    ParamsAfterEnd {
        /// The request.
        id: u16,
    },
    /// A piece of the body before the params were complete.
    #[error("FCGI_STDIN of request {id} has data before the end of its FCGI_PARAMS")]
    StdinBeforeParamsEnd {
        /// The request.
        id: u16,
    },
    /// A piece of the body after the empty record that ends it.
    #[error("FCGI_STDIN of request {id} goes on after its end")]
    StdinAfterEnd {
        /// The request.
        id: u16,
    },
    /// A malformed `FCGI_GET_VALUES` or `FCGI_GET_VALUES_RESULT`.
    #[error("malformed record of type {kind:#04x}: a name-value pair runs past its end")]
    ValuesMalformed {
        /// The record's type.
        kind: u8,
    },
    /// A `FCGI_GET_VALUES` that asks for too much.
    #[error(
        "FCGI_GET_VALUES asks for more than {limit} values, the limit of limit.params_count (--params-count): ask for fewer, or raise it"
    )]
    TooManyValues {
        /// The limit, in names.
        limit: usize,
    },
    /// A record that only the other side may send.
    #[error(
        "a record of type {kind:#04x} for request {id}, which this side of the connection sends, not receives"
    )]
    WrongDirection {
        /// The request.
        id: u16,
        /// The record's type.
        kind: u8,
    },
    /// In a response: a `FCGI_END_REQUEST` or `FCGI_UNKNOWN_TYPE` of another size than 8 bytes.
    #[error("a record of type {kind:#04x} has {length} bytes instead of 8")]
    BodyLength {
        /// The record's type.
        kind: u8,
        /// Length of the record's content.
        length: usize,
    },
    /// In a response: a `FCGI_END_REQUEST` with a status that does not exist.
    #[error("FCGI_END_REQUEST of request {id} has the unknown protocol status {status:#04x}")]
    UnknownProtocolStatus {
        /// The request.
        id: u16,
        /// The status byte.
        status: u8,
    },
}
