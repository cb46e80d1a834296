//! What an application sends: bytes to [`ResponseEvent`]s, for relays and clients.

use super::error::FastcgiError;
use super::params;
use super::record::{ProtocolStatus, Record, RecordType};
use crate::request::Variables;

/// Reads the records which an application sends on one connection. It has no state of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResponseDecoder;

/// What an application has sent.
#[derive(Debug)]
pub enum ResponseEvent<'a> {
    /// A piece of the response; never empty.
    Stdout {
        /// The request.
        id: u16,
        /// The piece.
        data: &'a [u8],
    },
    /// A piece of error messages; never empty.
    Stderr {
        /// The request.
        id: u16,
        /// The piece.
        data: &'a [u8],
    },
    /// The request has ended.
    End {
        /// The request.
        id: u16,
        /// The application's status, 0 for success.
        app_status: u32,
        /// How it ended for the protocol.
        protocol_status: ProtocolStatus,
    },
    /// The answer to a question for values.
    GetValuesResult {
        /// The names that the application knows, with their values.
        values: Variables,
    },
    /// The application does not know a type of record.
    UnknownType {
        /// The type.
        kind: u8,
    },
}

impl ResponseDecoder {
    /// A decoder at the start of a connection.
    pub fn new() -> Self {
        Self
    }

    /// The next event, `None` when it takes more bytes; `input` is treated as by
    /// [`Decoder::decode`](super::Decoder::decode).
    ///
    /// The ends of stdout and stderr are no events: applications may leave them out, and the end of the request says
    /// it all.
    ///
    /// # Errors
    ///
    /// When the application breaks the protocol. The connection is to be closed then.
    pub fn decode<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<ResponseEvent<'a>>, FastcgiError> {
        while let Some(record) = Record::peek(input)? {
            *input = &input[record.len..];
            let event = event(&record)?;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }
}

fn event<'a>(record: &Record<'a>) -> Result<Option<ResponseEvent<'a>>, FastcgiError> {
    let &Record {
        kind, id, content, ..
    } = record;
    let event = match RecordType::from_code(kind) {
        Some(RecordType::Stdout | RecordType::Stderr | RecordType::EndRequest) if id == 0 => {
            return Err(FastcgiError::NullRequestId { kind });
        }
        Some(RecordType::Stdout | RecordType::Stderr) if content.is_empty() => return Ok(None),
        Some(RecordType::Stdout) => ResponseEvent::Stdout { id, data: content },
        Some(RecordType::Stderr) => ResponseEvent::Stderr { id, data: content },
        Some(RecordType::EndRequest) => {
            let &[app3, app2, app1, app0, status, _, _, _] = eight(kind, content)?;
            ResponseEvent::End {
                id,
                app_status: u32::from_be_bytes([app3, app2, app1, app0]),
                protocol_status: ProtocolStatus::from_code(status)
                    .ok_or(FastcgiError::UnknownProtocolStatus { id, status })?,
            }
        }
        Some(RecordType::GetValuesResult) => ResponseEvent::GetValuesResult {
            values: params::into_variables(content.to_vec(), usize::MAX)
                .map_err(|_| FastcgiError::ValuesMalformed { kind })?,
        },
        Some(RecordType::UnknownType) => ResponseEvent::UnknownType {
            kind: eight(kind, content)?[0],
        },
        // A type of a later version of the protocol, which only a web server that asked for it would get.
        None => return Ok(None),
        Some(_) => return Err(FastcgiError::WrongDirection { id, kind }),
    };
    Ok(Some(event))
}

fn eight(kind: u8, content: &[u8]) -> Result<&[u8; 8], FastcgiError> {
    content.try_into().map_err(|_| FastcgiError::BodyLength {
        kind,
        length: content.len(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::encoder;
    use super::*;

    #[test]
    fn a_response_comes_back_as_it_was_encoded() {
        let mut wire = Vec::new();
        encoder::push_get_values_result(&mut wire, &[(b"FCGI_MPXS_CONNS", b"1")]);
        encoder::push_stream(&mut wire, RecordType::Stdout, 7, b"out");
        encoder::push_stream(&mut wire, RecordType::Stderr, 7, b"err");
        encoder::push_stream_end(&mut wire, RecordType::Stdout, 7);
        encoder::push_unknown_type(&mut wire, 0x2a);
        encoder::push_end_request(&mut wire, 7, 0x0102_0304, ProtocolStatus::Overloaded);

        for cut in 0..=wire.len() {
            let mut decoder = ResponseDecoder::new();
            let mut seen = Vec::new();
            let mut start = 0;
            for end in [cut, wire.len()] {
                let mut input = &wire[start..end];
                while let Some(event) = decoder.decode(&mut input).unwrap() {
                    seen.push(format!("{event:?}"));
                }
                start = end - input.len();
            }
            assert_eq!(
                seen,
                [
                    r#"GetValuesResult { values: {"FCGI_MPXS_CONNS": "1"} }"#,
                    r"Stdout { id: 7, data: [111, 117, 116] }",
                    r"Stderr { id: 7, data: [101, 114, 114] }",
                    r"UnknownType { kind: 42 }",
                    r"End { id: 7, app_status: 16909060, protocol_status: Overloaded }",
                ]
            );
        }
    }

    #[test]
    fn errors() {
        let error = |wire: &[u8]| ResponseDecoder::new().decode(&mut &wire[..]).unwrap_err();
        assert_eq!(error(b"H"), FastcgiError::Version { found: b'H' });
        assert_eq!(
            error(&[1, 6, 0, 0, 0, 0, 0, 0]),
            FastcgiError::NullRequestId { kind: 6 }
        );
        assert_eq!(
            error(&[1, 5, 0, 1, 0, 0, 0, 0]),
            FastcgiError::WrongDirection { id: 1, kind: 5 }
        );
        assert_eq!(
            error(&[1, 3, 0, 1, 0, 0, 0, 0]),
            FastcgiError::BodyLength { kind: 3, length: 0 }
        );
        assert_eq!(
            error(&[1, 11, 0, 0, 0, 1, 0, 0, 9]),
            FastcgiError::BodyLength {
                kind: 11,
                length: 1
            }
        );
        assert_eq!(
            error(&[1, 10, 0, 0, 0, 1, 0, 0, 9]),
            FastcgiError::ValuesMalformed { kind: 10 }
        );
        assert_eq!(
            error(&[1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]),
            FastcgiError::UnknownProtocolStatus { id: 1, status: 4 }
        );
    }
}
