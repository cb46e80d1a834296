//! Limits, and what is refused.

use super::*;

#[test]
fn limits_are_the_last_allowed_value() {
    let limits = DecoderLimits {
        params_size: 8,
        params_count: 2,
        requests: 1,
    };
    let decode = |content: &[&[u8]]| {
        let mut wire = begin(1, 1, 0);
        for content in content.iter().chain([&&b""[..]]) {
            wire.extend(record(4, 1, content, 0));
        }
        decode(&mut Decoder::new(limits), &wire, []).map(|seen| seen.len())
    };
    assert_eq!(decode(&[b"\x03\x03abcdef"]), Ok(2));
    assert_eq!(decode(&[b"\x01\x01ab\x01", b"\x01cd"]), Ok(2));
    let too_large = Err(FastcgiError::ParamsTooLarge { id: 1, limit: 8 });
    assert_eq!(decode(&[b"\x03\x04abcdefg"]), too_large);
    assert_eq!(decode(&[b"\x03\x03abcde", b"fg"]), too_large);
    assert_eq!(
        decode(&[&[0; 6]]),
        Err(FastcgiError::TooManyParams { id: 1, limit: 2 })
    );
    let message = decode(&[&[0; 9]]).unwrap_err().to_string();
    assert!(
        message.contains("8 bytes") && message.contains("limit.params_size (--params-size)"),
        "{message}"
    );
    let message = decode(&[&[0; 8]]).unwrap_err().to_string();
    assert!(
        message.contains("2 name-value pairs")
            && message.contains("limit.params_count (--params-count)"),
        "{message}"
    );
}

#[test]
fn errors() {
    let open = [begin(1, 1, 0), record(4, 1, b"", 0)].concat();
    let ended = [&open[..], &record(5, 1, b"", 0)].concat();
    let error = |prefix: &[u8], last: Vec<u8>| decode_all(&[prefix, &last].concat()).unwrap_err();

    assert_eq!(
        error(b"", b"GET / HTTP/1.1\r\n".to_vec()),
        FastcgiError::Version { found: b'G' }
    );
    assert_eq!(error(&open, vec![2]), FastcgiError::Version { found: 2 });
    for kind in 1..=8 {
        assert_eq!(
            error(b"", record(kind, 0, &[0; 8], 0)),
            FastcgiError::NullRequestId { kind }
        );
    }
    for length in [0, 7, 9] {
        assert_eq!(
            error(b"", record(1, 1, &vec![0; length], 0)),
            FastcgiError::BeginLength { id: 1, length }
        );
    }
    assert_eq!(
        error(&open, begin(1, 1, 0)),
        FastcgiError::AlreadyOpen { id: 1 }
    );
    assert_eq!(
        error(&begin(1, 1, 0), begin(1, 1, 0)),
        FastcgiError::AlreadyOpen { id: 1 }
    );
    let cut = [begin(1, 1, 0), record(4, 1, b"\x01\x02ab", 0)].concat();
    assert_eq!(
        error(&cut, record(4, 1, b"", 0)),
        FastcgiError::ParamsMalformed { id: 1 }
    );
    assert_eq!(
        error(&cut, record(5, 1, b"", 0)),
        FastcgiError::ParamsMalformed { id: 1 }
    );
    assert_eq!(
        error(&open, record(4, 1, b"a", 0)),
        FastcgiError::ParamsAfterEnd { id: 1 }
    );
    assert_eq!(
        error(&ended, record(4, 1, b"a", 0)),
        FastcgiError::ParamsAfterEnd { id: 1 }
    );
    assert_eq!(
        error(&begin(1, 1, 0), record(5, 1, b"a", 0)),
        FastcgiError::StdinBeforeParamsEnd { id: 1 }
    );
    assert_eq!(
        error(&ended, record(5, 1, b"a", 0)),
        FastcgiError::StdinAfterEnd { id: 1 }
    );
    for kind in [3, 6, 7] {
        assert_eq!(
            error(&open, record(kind, 1, b"", 0)),
            FastcgiError::WrongDirection { id: 1, kind }
        );
    }
    assert_eq!(
        error(b"", record(9, 0, b"\x05", 0)),
        FastcgiError::ValuesMalformed { kind: 9 }
    );
    assert_eq!(
        error(b"", record(9, 0, &[0; 202], 0)),
        FastcgiError::TooManyValues { limit: 100 }
    );
}
