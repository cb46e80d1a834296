//! What a web server sends: bytes to [`Event`]s.

use std::mem;

use super::encoder;
use super::error::FastcgiError;
use super::params::{self, BlockError, Malformed, Pairs};
use super::record::{KEEP_CONN, Record, RecordType, Role};
use crate::request::Variables;

/// Reads the records of one connection.
///
/// It holds the params of requests until they are complete, and nothing else: a record that is not there as a whole
/// stays with the caller, and the content of stdin is handed out where it lies.
///
/// # States of a request
///
/// ```text
///            BEGIN_REQUEST          empty PARAMS            empty STDIN
///  inactive ───────────────► Params ─────────────► Stdin ──────────────────► Ended
///     ▲          Begin         │       Request       │        StdinEnd         │
///     │                        │                     │  (Authorizer: at once)  │
///     │ ABORT_REQUEST: Abort   │   end_request()     │      end_request()      │
///     └────────────────────────┴─────────────────────┴─────────────────────────┘
/// ```
///
/// `ABORT_REQUEST` in the other two states is an [`Event::Abort`] too, but changes no state: the response is still to
/// be ended. While an id is inactive, all its records but `BEGIN_REQUEST` are ignored.
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    /// Few, and mostly one: searching a vector beats any map.
    requests: Vec<OpenRequest>,
}

/// What one connection may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Bytes of `FCGI_PARAMS` in one request; the setting is `limit.params_size`, or `--params-size`.
    pub params_size: usize,
    /// Name-value pairs in one request; the setting is `limit.params_count`, or `--params-count`.
    pub params_count: usize,
    /// Requests open at once.
    pub requests: usize,
}

/// What has arrived.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request has begun; its params follow.
    Begin {
        /// The request.
        id: u16,
        /// Whether the connection stays open after the response, also when the request is aborted before its params end.
        keep_conn: bool,
    },
    /// All params of a request have arrived.
    Request {
        /// The request.
        id: u16,
        /// Responder or Authorizer.
        role: Role,
        /// Whether the connection stays open after the response.
        keep_conn: bool,
        /// The params, after a first pair `FCGI_ROLE` that says the role, as php-fpm adds it. The web server's own
        /// `FCGI_ROLE` comes later and so wins, as in php-fpm.
        variables: Variables,
    },
    /// A piece of the body; never empty.
    Stdin {
        /// The request.
        id: u16,
        /// The piece.
        data: &'a [u8],
    },
    /// The body is complete. For an Authorizer, which has none, this follows [`Event::Request`] at once.
    StdinEnd {
        /// The request.
        id: u16,
    },
    /// The web server gives a request up. Without an [`Event::Request`] before it, the decoder has forgotten the
    /// request; else it stays open until [`Decoder::end_request`]. Either way the web server waits for an end of the
    /// request.
    Abort {
        /// The request.
        id: u16,
    },
    /// The web server asks for the values of some names; to be answered with those that are known.
    GetValues {
        /// The names.
        names: Vec<Vec<u8>>,
    },
    /// A record of a type that does not exist, to be answered with `FCGI_UNKNOWN_TYPE`.
    UnknownType {
        /// The type.
        kind: u8,
    },
    /// A request for a role we do not have, to be answered with `FCGI_UNKNOWN_ROLE`. It was not opened.
    UnknownRole {
        /// The request.
        id: u16,
        /// Whether the connection stays open after that answer.
        keep_conn: bool,
        /// The role.
        role: u16,
    },
    /// One request more than may be open at once, to be answered with `FCGI_OVERLOADED`. It was not opened.
    TooManyRequests {
        /// The request.
        id: u16,
        /// Whether the connection stays open after that answer.
        keep_conn: bool,
    },
}

#[derive(Debug)]
struct OpenRequest {
    id: u16,
    role: Role,
    keep_conn: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Params arrive. The block starts with the pair `FCGI_ROLE` from the first record on; until then it is empty and
    /// has no memory of its own.
    Params(Vec<u8>),
    /// The body arrives, or is about to be ended for an Authorizer.
    Stdin,
    /// All has arrived; the response is still to be ended.
    Ended,
}

impl Decoder {
    /// A decoder at the start of a connection.
    pub fn new(limits: DecoderLimits) -> Self {
        Self {
            limits,
            requests: Vec::new(),
        }
    }

    /// The next event, `None` when it takes more bytes.
    ///
    /// Whole records are taken off the front of `input`. What is left of it after a `None` is the start of a record,
    /// less than [`HEADER_LEN`](super::HEADER_LEN) + [`MAX_CONTENT`](super::MAX_CONTENT) + 255 bytes; it is to be
    /// presented again with what follows.
    ///
    /// # Errors
    ///
    /// When the peer breaks the protocol or a limit. The connection is to be closed then.
    pub fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, FastcgiError> {
        while let Some(record) = Record::peek(input)? {
            let (event, taken) = self.record(&record)?;
            if taken == Taken::Yes {
                *input = &input[record.len..];
            }
            debug_assert!(
                taken == Taken::Yes || event.is_some(),
                "a record may not stay for nothing"
            );
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// The response to `id` has been ended: the id is free. Records that still arrive for it are ignored.
    pub fn end_request(&mut self, id: u16) {
        self.requests.retain(|request| request.id != id);
    }

    /// Whether no request is open.
    ///
    /// Bytes of a record that is not there as a whole are the caller's to count.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Appends bytes that bring a new decoder to this one's state for the requests whose params are not complete yet;
    /// requests beyond that are left out.
    ///
    /// With this a connection can be passed to another process in the middle of a request. That process's decoder
    /// emits [`Event::Begin`] once more.
    pub fn replay_partial(&self, out: &mut Vec<u8>) {
        for request in &self.requests {
            if let Stage::Params(block) = &request.stage {
                encoder::push_begin_request(out, request.id, request.role, request.keep_conn);
                let params = block
                    .get(role_pair(request.role).len()..)
                    .unwrap_or_default();
                encoder::push_stream(out, RecordType::Params, request.id, params);
            }
        }
    }

    /// What `record` means, and whether it is used up by that.
    fn record<'a>(
        &mut self,
        record: &Record<'a>,
    ) -> Result<(Option<Event<'a>>, Taken), FastcgiError> {
        let &Record {
            kind, id, content, ..
        } = record;
        let event = match RecordType::from_code(kind) {
            // "An application may receive a FCGI_GET_VALUES record at any time." php-fpm takes it with any id.
            Some(RecordType::GetValues) => Some(self.get_values(content)?),
            // Answers to what we never ask. To answer such a one could go on for ever.
            Some(RecordType::GetValuesResult | RecordType::UnknownType) => None,
            // "When an application receives a management record whose type T it does not understand, the application
            // responds with {FCGI_UNKNOWN_TYPE, 0, {T}}." The same for a request that is open: nothing else tells its
            // sender.
            None if id == 0 || self.position(id).is_some() => Some(Event::UnknownType { kind }),
            None => None,
            // "Application records have a nonzero requestId."
            Some(_) if id == 0 => return Err(FastcgiError::NullRequestId { kind }),
            Some(RecordType::BeginRequest) => Some(self.begin(id, content)?),
            Some(kind) => match self.position(id) {
                Some(index) => return self.open_record(index, kind, content),
                // "While a request ID R is inactive, the application ignores records with requestId == R, except for
                // FCGI_BEGIN_REQUEST records as just described."
                None => None,
            },
        };
        Ok((event, Taken::Yes))
    }

    /// A record of a request that is open.
    fn open_record<'a>(
        &mut self,
        index: usize,
        kind: RecordType,
        content: &'a [u8],
    ) -> Result<(Option<Event<'a>>, Taken), FastcgiError> {
        let limits = self.limits;
        let request = &mut self.requests[index];
        let id = request.id;
        let event = match (kind, &mut request.stage) {
            (RecordType::Params, Stage::Params(block)) if !content.is_empty() => {
                push_params(block, role_pair(request.role), content, limits.params_size)
                    .map_err(|TooLarge { limit }| FastcgiError::ParamsTooLarge { id, limit })?;
                None
            }
            (RecordType::Params, Stage::Params(block)) => {
                let block = mem::take(block);
                let event = request.params_end(block, limits.params_count)?;
                // An Authorizer has no stdin: this record stays, to be its end as well.
                let taken = if request.role == Role::Authorizer {
                    Taken::No
                } else {
                    Taken::Yes
                };
                return Ok((Some(event), taken));
            }
            (RecordType::Params, Stage::Stdin)
                if content.is_empty() && request.role == Role::Authorizer =>
            {
                request.stage = Stage::Ended;
                Some(Event::StdinEnd { id })
            }
            (RecordType::Params, Stage::Stdin | Stage::Ended) if content.is_empty() => None,
            (RecordType::Params, Stage::Stdin | Stage::Ended) => {
                return Err(FastcgiError::ParamsAfterEnd { id });
            }
            // php-fpm takes whatever is no FCGI_PARAMS for their end. Of the clients that work with it, some may leave
            // the empty FCGI_PARAMS out; a body cannot follow then, since php-fpm loses that record.
            (RecordType::Stdin, Stage::Params(block)) if content.is_empty() => {
                let block = mem::take(block);
                let event = request.params_end(block, limits.params_count)?;
                return Ok((Some(event), Taken::No));
            }
            (RecordType::Stdin, Stage::Params(_)) => {
                return Err(FastcgiError::StdinBeforeParamsEnd { id });
            }
            (RecordType::Stdin, Stage::Stdin) if content.is_empty() => {
                request.stage = Stage::Ended;
                Some(Event::StdinEnd { id })
            }
            (RecordType::Stdin, Stage::Stdin) => Some(Event::Stdin { id, data: content }),
            (RecordType::Stdin, Stage::Ended) if content.is_empty() => None,
            (RecordType::Stdin, Stage::Ended) => return Err(FastcgiError::StdinAfterEnd { id }),
            // A stream of Filters only.
            (RecordType::Data, _) => None,
            (RecordType::AbortRequest, stage) => {
                if matches!(stage, Stage::Params(_)) {
                    self.requests.swap_remove(index);
                }
                Some(Event::Abort { id })
            }
            _ => {
                return Err(FastcgiError::WrongDirection {
                    id,
                    kind: kind.code(),
                });
            }
        };
        Ok((event, Taken::Yes))
    }

    fn begin<'a>(&mut self, id: u16, content: &[u8]) -> Result<Event<'a>, FastcgiError> {
        let &[role1, role0, flags, _, _, _, _, _] = content else {
            return Err(FastcgiError::BeginLength {
                id,
                length: content.len(),
            });
        };
        if self.position(id).is_some() {
            return Err(FastcgiError::AlreadyOpen { id });
        }
        let role = u16::from_be_bytes([role1, role0]);
        let keep_conn = flags & KEEP_CONN != 0;
        let Some(known @ (Role::Responder | Role::Authorizer)) = Role::from_code(role) else {
            return Ok(Event::UnknownRole {
                id,
                keep_conn,
                role,
            });
        };
        if self.requests.len() >= self.limits.requests {
            return Ok(Event::TooManyRequests { id, keep_conn });
        }
        self.requests.push(OpenRequest {
            id,
            role: known,
            keep_conn,
            stage: Stage::Params(Vec::new()),
        });
        Ok(Event::Begin { id, keep_conn })
    }

    fn get_values<'a>(&self, content: &[u8]) -> Result<Event<'a>, FastcgiError> {
        let mut names = Vec::new();
        for pair in Pairs::new(content) {
            let pair = pair.map_err(|Malformed| FastcgiError::ValuesMalformed {
                kind: RecordType::GetValues.code(),
            })?;
            if names.len() == self.limits.params_count {
                return Err(FastcgiError::TooManyValues {
                    limit: self.limits.params_count,
                });
            }
            names.push(content[pair.name].to_vec());
        }
        Ok(Event::GetValues { names })
    }

    fn position(&self, id: u16) -> Option<usize> {
        self.requests.iter().position(|request| request.id == id)
    }
}

impl OpenRequest {
    /// All params are there, and are `block`.
    fn params_end<'a>(
        &mut self,
        mut block: Vec<u8>,
        limit: usize,
    ) -> Result<Event<'a>, FastcgiError> {
        debug_assert!(matches!(self.stage, Stage::Params(_)));
        let id = self.id;
        self.stage = Stage::Stdin;
        if block.is_empty() {
            block.extend_from_slice(role_pair(self.role));
        }
        // The pair FCGI_ROLE is not the web server's, and so does not count.
        let variables = params::into_variables(block, limit.saturating_add(1)).map_err(
            |error| match error {
                BlockError::Malformed => FastcgiError::ParamsMalformed { id },
                BlockError::TooMany => FastcgiError::TooManyParams { id, limit },
            },
        )?;
        Ok(Event::Request {
            id,
            role: self.role,
            keep_conn: self.keep_conn,
            variables,
        })
    }
}

/// Whether a record is used up, or stays at the front of the input for the next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    No,
}

struct TooLarge {
    limit: usize,
}

/// Appends a piece of params to `block`, which starts with `role`.
fn push_params(
    block: &mut Vec<u8>,
    role: &[u8],
    content: &[u8],
    limit: usize,
) -> Result<(), TooLarge> {
    let so_far = block.len().saturating_sub(role.len());
    if content.len() > limit.saturating_sub(so_far) {
        return Err(TooLarge { limit });
    }
    if block.is_empty() {
        block.reserve(role.len() + content.len() + SPARE);
        block.extend_from_slice(role);
    }
    block.extend_from_slice(content);
    Ok(())
}

/// The pair that php-fpm puts before the web server's.
fn role_pair(role: Role) -> &'static [u8] {
    match role {
        Role::Responder => b"\x09\x09FCGI_ROLERESPONDER",
        Role::Authorizer => b"\x09\x0aFCGI_ROLEAUTHORIZER",
        Role::Filter => b"\x09\x06FCGI_ROLEFILTER",
    }
}

/// Room in a request's buffer for the variables that are set before a script runs, so that these do not move it.
const SPARE: usize = 512;
