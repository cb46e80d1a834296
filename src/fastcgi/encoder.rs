//! What either side sends: values to bytes, appended to a buffer.

use super::params;
use super::record::{
    HEADER_LEN, KEEP_CONN, MAX_CONTENT, ProtocolStatus, RecordType, Role, VERSION,
};
use crate::request::Variables;

/// The header of a record with `content` bytes of content and `padding` bytes after them.
///
/// # Panics
///
/// When `content` is more than [`MAX_CONTENT`].
pub fn header(kind: RecordType, id: u16, content: usize, padding: u8) -> [u8; HEADER_LEN] {
    assert!(
        content <= MAX_CONTENT,
        "a record has at most {MAX_CONTENT} bytes of content, not {content}"
    );
    let length = u16::try_from(content).expect("checked on the line above");
    let [id1, id0] = id.to_be_bytes();
    let [length1, length0] = length.to_be_bytes();
    [VERSION, kind.code(), id1, id0, length1, length0, padding, 0]
}

/// Appends `data` in as many records of a stream as it takes, none when it is empty.
pub fn push_stream(out: &mut Vec<u8>, kind: RecordType, id: u16, data: &[u8]) {
    out.reserve(data.len() + (data.len() / STREAM_CONTENT + 1) * (HEADER_LEN + 7));
    for content in data.chunks(STREAM_CONTENT) {
        push_record(out, kind, id, content);
    }
}

/// Appends the empty record that ends a stream.
pub fn push_stream_end(out: &mut Vec<u8>, kind: RecordType, id: u16) {
    push_record(out, kind, id, &[]);
}

/// Appends the end of a request.
pub fn push_end_request(out: &mut Vec<u8>, id: u16, app_status: u32, status: ProtocolStatus) {
    let [app3, app2, app1, app0] = app_status.to_be_bytes();
    push_record(
        out,
        RecordType::EndRequest,
        id,
        &[app3, app2, app1, app0, status.code(), 0, 0, 0],
    );
}

/// Appends the answer to [`GetValues`](super::Event::GetValues). Pairs that do not fit into the one record that the
/// answer may have are left out, as in php-fpm.
pub fn push_get_values_result(out: &mut Vec<u8>, pairs: &[(&[u8], &[u8])]) {
    push_values(out, RecordType::GetValuesResult, pairs.iter().copied());
}

/// Appends the answer to a record of unknown type `kind`.
pub fn push_unknown_type(out: &mut Vec<u8>, kind: u8) {
    push_record(
        out,
        RecordType::UnknownType,
        0,
        &[kind, 0, 0, 0, 0, 0, 0, 0],
    );
}

/// Appends a web server's start of a request.
pub fn push_begin_request(out: &mut Vec<u8>, id: u16, role: Role, keep_conn: bool) {
    let [role1, role0] = role.code().to_be_bytes();
    let flags = if keep_conn { KEEP_CONN } else { 0 };
    push_record(
        out,
        RecordType::BeginRequest,
        id,
        &[role1, role0, flags, 0, 0, 0, 0, 0],
    );
}

/// Appends a web server's params with the empty record that ends them.
///
/// Without a first pair `FCGI_ROLE`: the decoder put it there, and the next one will again. No pair is split over two
/// records unless it is bigger than a record, since php-fpm cannot read that.
pub fn push_params(out: &mut Vec<u8>, id: u16, variables: &Variables) {
    let mut record = OpenRecord::new(out, RecordType::Params, id);
    let mut pairs = variables.iter().peekable();
    pairs.next_if(|(name, _)| *name == b"FCGI_ROLE");
    for (name, value) in pairs {
        let length = params::pair_len(name, value);
        if length > STREAM_CONTENT {
            let mut pair = Vec::with_capacity(length);
            params::push_pair(&mut pair, name, value);
            record.close(out);
            push_stream(out, RecordType::Params, id, &pair);
            record = OpenRecord::new(out, RecordType::Params, id);
            continue;
        }
        if record.len(out) + length > STREAM_CONTENT {
            record.close(out);
            record = OpenRecord::new(out, RecordType::Params, id);
        }
        params::push_pair(out, name, value);
    }
    record.close(out);
    push_stream_end(out, RecordType::Params, id);
}

/// Appends a web server's wish to give a request up.
pub fn push_abort_request(out: &mut Vec<u8>, id: u16) {
    push_record(out, RecordType::AbortRequest, id, &[]);
}

/// Appends a web server's question for the values of `names`. Names that do not fit into one record are left out.
pub fn push_get_values(out: &mut Vec<u8>, names: &[&[u8]]) {
    push_values(
        out,
        RecordType::GetValues,
        names.iter().map(|name| (*name, &[][..])),
    );
}

fn push_values<'a>(
    out: &mut Vec<u8>,
    kind: RecordType,
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) {
    let mut content = Vec::new();
    for (name, value) in pairs {
        if content.len() + params::pair_len(name, value) <= STREAM_CONTENT {
            params::push_pair(&mut content, name, value);
        }
    }
    push_record(out, kind, 0, &content);
}

fn push_record(out: &mut Vec<u8>, kind: RecordType, id: u16, content: &[u8]) {
    let padding = padding(content.len());
    out.extend_from_slice(&header(kind, id, content.len(), padding));
    out.extend_from_slice(content);
    out.resize(out.len() + usize::from(padding), 0);
}

/// "We recommend that records be placed on boundaries that are multiples of eight bytes."
fn padding(content: usize) -> u8 {
    const PADDING: [u8; 8] = [0, 7, 6, 5, 4, 3, 2, 1];
    PADDING[content % 8]
}

/// A record of a stream at the end of a buffer, whose content is being appended.
struct OpenRecord {
    kind: RecordType,
    id: u16,
    start: usize,
}

impl OpenRecord {
    fn new(out: &mut Vec<u8>, kind: RecordType, id: u16) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        Self { kind, id, start }
    }

    /// Length of the content so far.
    fn len(&self, out: &[u8]) -> usize {
        out.len() - self.start - HEADER_LEN
    }

    /// Writes the header and the padding; an empty record, which would end the stream, is taken back instead.
    fn close(self, out: &mut Vec<u8>) {
        let length = self.len(out);
        if length == 0 {
            out.truncate(self.start);
            return;
        }
        let padding = padding(length);
        out[self.start..self.start + HEADER_LEN]
            .copy_from_slice(&header(self.kind, self.id, length, padding));
        out.resize(out.len() + usize::from(padding), 0);
    }
}

/// Most content that we put into a record: a multiple of eight, as in php-fpm.
const STREAM_CONTENT: usize = 0xfff8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_records_from_bytes() {
        let mut out = Vec::new();
        push_end_request(&mut out, 0x0102, 0x0a0b_0c0d, ProtocolStatus::UnknownRole);
        assert_eq!(
            out,
            [1, 3, 1, 2, 0, 8, 0, 0, 0x0a, 0x0b, 0x0c, 0x0d, 3, 0, 0, 0]
        );

        out.clear();
        push_unknown_type(&mut out, 0x63);
        assert_eq!(out, [1, 11, 0, 0, 0, 8, 0, 0, 0x63, 0, 0, 0, 0, 0, 0, 0]);

        out.clear();
        push_begin_request(&mut out, 1, Role::Responder, true);
        push_abort_request(&mut out, 1);
        assert_eq!(
            out,
            [
                1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 2, 0, 1, 0, 0, 0, 0
            ]
        );

        out.clear();
        push_get_values_result(&mut out, &[(b"ab", b"1")]);
        assert_eq!(out, *b"\x01\x0a\0\0\0\x05\x03\0\x02\x01ab1\0\0\0");

        out.clear();
        push_get_values(&mut out, &[b"abcd", b""]);
        assert_eq!(out, *b"\x01\x09\0\0\0\x08\0\0\x04\0abcd\0\0");
    }

    #[test]
    fn streams_are_split_and_padded() {
        let mut out = Vec::new();
        push_stream(&mut out, RecordType::Stdout, 1, b"");
        assert!(out.is_empty());
        push_stream(&mut out, RecordType::Stdout, 1, b"abc");
        assert_eq!(out, *b"\x01\x06\0\x01\0\x03\x05\0abc\0\0\0\0\0");
        push_stream_end(&mut out, RecordType::Stdout, 1);
        assert_eq!(out[16..], *b"\x01\x06\0\x01\0\0\0\0");

        out.clear();
        push_stream(&mut out, RecordType::Stdout, 1, &[7; 0xfff9]);
        assert_eq!(out[..8], [1, 6, 0, 1, 0xff, 0xf8, 0, 0]);
        assert_eq!(
            out[0x1_0000..],
            [1, 6, 0, 1, 0, 1, 7, 0, 7, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    /// Lengths of the records that these params take.
    fn params_records(variables: &Variables) -> Vec<usize> {
        let mut out = Vec::new();
        push_params(&mut out, 1, variables);
        let mut lengths = Vec::new();
        let mut at = 0;
        while at < out.len() {
            let content = usize::from(u16::from_be_bytes([out[at + 4], out[at + 5]]));
            lengths.push(content);
            at += HEADER_LEN + content + usize::from(out[at + 6]);
        }
        lengths
    }

    #[test]
    fn no_pair_is_split_unless_it_has_to_be() {
        let mut variables = Variables::new();
        variables.push(b"FCGI_ROLE", b"RESPONDER");
        variables.push(b"A", &[1; 0x8000]);
        variables.push(b"B", &[2; 0x8000]);
        variables.push(b"C", &[3; 0x1_0000]);
        variables.push(b"D", b"");
        assert_eq!(
            params_records(&variables),
            [0x8006, 0x8006, 0xfff8, 14, 3, 0]
        );

        // The first value that fills a record, and the next one.
        for (length, records) in [(0x7fec, &[0xfff8, 0][..]), (0x7fed, &[0x8006, 0x7ff3, 0])] {
            let mut variables = Variables::new();
            variables.push(b"A", &[1; 0x8000]);
            variables.push(b"B", &vec![2; length]);
            assert_eq!(params_records(&variables), records);
        }
    }

    #[test]
    fn values_that_do_not_fit_are_left_out() {
        let big = vec![0; 0xffef];
        let mut out = Vec::new();
        push_get_values_result(&mut out, &[(b"a", &big), (b"much more", b"x"), (b"b", b"")]);
        assert_eq!(out.len(), HEADER_LEN + 0xfff8);
        assert_eq!(out[out.len() - 2..], [0, b'b'][..]);
    }

    #[test]
    #[should_panic(expected = "at most 65535 bytes")]
    fn header_refuses_what_a_record_cannot_hold() {
        let _ = header(RecordType::Stdout, 1, 0x1_0000, 0);
    }
}
