//! A record: its header, and the numbers that may stand in it.

use super::error::FastcgiError;

/// Length of a record's header.
pub const HEADER_LEN: usize = 8;

/// Most bytes of content in one record.
pub const MAX_CONTENT: usize = 0xffff;

/// Declares a wire number: an enum with `code` and `from_code`.
macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident: $number:ty { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The number on the wire.
            pub const fn code(self) -> $number {
                match self {
                    $(Self::$variant => $code,)*
                }
            }

            /// The value with this number on the wire, if there is one.
            pub const fn from_code(code: $number) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

wire_enum! {
    /// Types of records (section 8 of the specification).
    RecordType: u8 {
        /// The web server starts a request.
        BeginRequest = 0x01,
        /// The web server gives a request up.
        AbortRequest = 0x02,
        /// The application has ended a request, or refuses it.
        EndRequest = 0x03,
        /// Stream of name-value pairs to the application.
        Params = 0x04,
        /// Stream of the request's body to the application.
        Stdin = 0x05,
        /// Stream of the response.
        Stdout = 0x06,
        /// Stream of error messages.
        Stderr = 0x07,
        /// Stream of the file that a Filter filters.
        Data = 0x08,
        /// The web server asks for values.
        GetValues = 0x09,
        /// The application's answer to that.
        GetValuesResult = 0x0a,
        /// The application does not know the type of a record.
        UnknownType = 0x0b,
    }
}

wire_enum! {
    /// What the web server wants of the application.
    Role: u16 {
        /// Answer an HTTP request.
        Responder = 0x0001,
        /// Decide whether an HTTP request is allowed.
        Authorizer = 0x0002,
        /// Filter a file.
        Filter = 0x0003,
    }
}

wire_enum! {
    /// How a request ended, for the protocol.
    ProtocolStatus: u8 {
        /// Normally.
        RequestComplete = 0x00,
        /// Refused: the application has one request at a time per connection.
        CantMultiplex = 0x01,
        /// Refused: the application has no room for it.
        Overloaded = 0x02,
        /// Refused: the application does not have the role.
        UnknownRole = 0x03,
    }
}

/// A whole record, without its padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// The type as it came; [`RecordType::from_code`] knows it or not.
    pub(super) kind: u8,
    /// The request, 0 for management records.
    pub(super) id: u16,
    /// The content.
    pub(super) content: &'a [u8],
    /// Length of the record on the wire, with header and padding.
    pub(super) len: usize,
}

impl<'a> Record<'a> {
    /// The record at the start of `input`, `None` when it is not there as a whole.
    ///
    /// A wrong version is an error from its first byte on: a peer of another protocol may never send a whole record.
    pub(super) fn peek(input: &'a [u8]) -> Result<Option<Self>, FastcgiError> {
        // "version: Identifies the FastCGI protocol version. This specification documents FCGI_VERSION_1."
        if let Some(&found) = input.first()
            && found != VERSION
        {
            return Err(FastcgiError::Version { found });
        }
        let Some((&[_, kind, id1, id0, length1, length0, padding, _], rest)) =
            input.split_first_chunk::<HEADER_LEN>()
        else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([length1, length0]));
        // "paddingData: Between 0 and 255 bytes of data, which are ignored."
        let len = HEADER_LEN + length + usize::from(padding);
        if input.len() < len {
            return Ok(None);
        }
        Ok(Some(Self {
            kind,
            id: u16::from_be_bytes([id1, id0]),
            content: &rest[..length],
            len,
        }))
    }
}

/// The version of the protocol, `FCGI_VERSION_1`.
pub(super) const VERSION: u8 = 0x01;

/// The bit of `FCGI_BEGIN_REQUEST`'s flags that leaves the connection to the web server, `FCGI_KEEP_CONN`.
pub(super) const KEEP_CONN: u8 = 0x01;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_specification() {
        assert_eq!(RecordType::BeginRequest.code(), 1);
        assert_eq!(RecordType::UnknownType.code(), 11);
        assert_eq!(RecordType::from_code(0), None);
        assert_eq!(RecordType::from_code(12), None);
        for code in 1..=11 {
            assert_eq!(
                RecordType::from_code(code).map(RecordType::code),
                Some(code)
            );
        }
        assert_eq!(Role::from_code(2), Some(Role::Authorizer));
        assert_eq!(Role::from_code(0), None);
        assert_eq!(ProtocolStatus::Overloaded.code(), 2);
    }

    #[test]
    fn padding_is_not_content() {
        let input = [1, 5, 0x12, 0x34, 0, 2, 3, 0, b'a', b'b', 9, 9, 9, 1];
        let record = Record::peek(&input).unwrap().unwrap();
        assert_eq!(
            (record.kind, record.id, record.content, record.len),
            (5, 0x1234, &b"ab"[..], 13)
        );
        for end in 0..13 {
            assert_eq!(Record::peek(&input[..end]), Ok(None));
        }
    }

    #[test]
    fn another_version_is_an_error_from_its_first_byte_on() {
        assert_eq!(
            Record::peek(b"G"),
            Err(FastcgiError::Version { found: b'G' })
        );
        assert_eq!(
            Record::peek(&[0; 8]),
            Err(FastcgiError::Version { found: 0 })
        );
    }
}
