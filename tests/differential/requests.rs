//! Methods, headers, authentication, params of every shape.

use super::suite::Suite;
use crate::support::client::Request;

pub(crate) fn cases(suite: &mut Suite) {
    methods(suite);
    headers(suite);
    authentication(suite);
    params(suite);
}

fn dump(suite: &mut Suite, name: &str, change: impl FnOnce(Request) -> Request) {
    let request = change(suite.get("/dump.php?q=1"));
    suite.case(name, request);
}

fn methods(suite: &mut Suite) {
    for method in [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE", "get",
        "post", "Fo o", "",
    ] {
        dump(suite, &format!("method {method:?}"), |request| {
            request.method(method)
        });
        dump(
            suite,
            &format!("method {method:?} with a form"),
            |request| request.form("a=1&b[]=2").method(method),
        );
    }
    dump(suite, "no method", |request| {
        request.without("REQUEST_METHOD")
    });
    dump(suite, "no method with a form", |request| {
        request.form("a=1").without("REQUEST_METHOD")
    });
    dump(suite, "long method", |request| {
        request.method(&"M".repeat(300))
    });
    for protocol in [
        "HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/3.0", "INCLUDED", "",
    ] {
        dump(suite, &format!("protocol {protocol:?}"), |request| {
            request.param("SERVER_PROTOCOL", protocol)
        });
    }
}

fn headers(suite: &mut Suite) {
    dump(suite, "usual headers", |request| {
        request
            .header("User-Agent", "Mozilla/5.0")
            .header("Accept", "text/html,*/*;q=0.8")
            .header("Accept-Encoding", "gzip, br")
            .header("Referer", "http://example.test/?a=1&b=2")
            .header("X-Forwarded-For", "198.51.100.3")
    });
    dump(suite, "proxy header", |request| {
        request
            .header("Proxy", "http://192.0.2.9:3128")
            .header("Proxy-X", "1")
    });
    dump(suite, "content headers twice", |request| {
        request
            .form("a=1")
            .header("Content-Type", "text/plain")
            .header("Content-Length", "99")
    });
    dump(suite, "content headers without params", |request| {
        request
            .header("Content-Type", "text/plain")
            .header("Content-Length", "0")
    });
    dump(suite, "empty header", |request| {
        request.header("X-Empty", "")
    });
    dump(suite, "lower-case header", |request| {
        request.param("HTTP_x_lower", "1").param("http_y", "2")
    });
    dump(suite, "header with dot", |request| {
        request.param("HTTP_X.Y", "1").param("HTTP_X-Z", "2")
    });
    dump(suite, "header names that look alike", |request| {
        request
            .param("HTTP_A_B", "1")
            .param("HTTP_A.B", "2")
            .param("HTTP_A B", "3")
    });
    dump(suite, "only the prefix", |request| {
        request.param("HTTP_", "1").param("HTTP", "2")
    });
    dump(suite, "binary header", |request| {
        request.header("X-Binary", b"\x00\x01\xff\xfe")
    });
    dump(suite, "header in Latin 1", |request| {
        request.header("X-Latin", b"caf\xe9")
    });
    dump(suite, "header of 127 bytes", |request| {
        request.header("X-Long", "x".repeat(127))
    });
    dump(suite, "header of 128 bytes", |request| {
        request.header("X-Long", "x".repeat(128))
    });
    dump(suite, "header of 8000 bytes", |request| {
        request.header("X-Long", "x".repeat(8000))
    });
    dump(suite, "header of 40000 bytes", |request| {
        request.header("X-Long", "x".repeat(40_000))
    });
    dump(suite, "long header name", |request| {
        request.header(&"N".repeat(300), "1")
    });
    dump(suite, "two hundred headers", |request| {
        (0..200).fold(request, |request, number| {
            request.header(&format!("X-{number}"), number.to_string())
        })
    });
    dump(suite, "header twice", |request| {
        request
            .another_param("HTTP_X", "1")
            .another_param("HTTP_X", "2")
    });
    dump(suite, "host with port", |request| {
        request
            .header("Host", "example.test:8080")
            .param("SERVER_PORT", "8080")
    });
    dump(suite, "https", |request| {
        request.param("HTTPS", "on").param("SERVER_PORT", "443")
    });
}

fn authentication(suite: &mut Suite) {
    let values = [
        ("basic", "Basic dXNlcjpwYXNz"),
        ("basic with colons", "Basic dXNlcjpwYTpzcw=="),
        ("basic without colon", "Basic dXNlcg=="),
        ("basic with empty user", "Basic OnBhc3M="),
        ("basic that is not base64", "Basic !!!"),
        ("basic and nothing", "Basic "),
        ("basic and no space", "Basic"),
        ("basic in lower case", "basic dXNlcjpwYXNz"),
        (
            "digest",
            "Digest username=\"u\", realm=\"r\", nonce=\"n\", uri=\"/\", response=\"0\"",
        ),
        ("digest in lower case", "digest username=\"u\""),
        ("bearer", "Bearer abc.def"),
        ("empty", ""),
    ];
    for (name, value) in values {
        dump(suite, &format!("authorization {name}"), |request| {
            request.header("Authorization", value)
        });
    }
    dump(suite, "authorization by the front end", |request| {
        request
            .header("Authorization", "Basic dXNlcjpwYXNz")
            .param("AUTH_TYPE", "Basic")
            .param("REMOTE_USER", "other")
    });
    dump(suite, "authorization and auth type only", |request| {
        request
            .header("Authorization", "Basic dXNlcjpwYXNz")
            .param("AUTH_TYPE", "Basic")
    });
    dump(suite, "authorization as params", |request| {
        request
            .param("PHP_AUTH_USER", "u")
            .param("PHP_AUTH_PW", "p")
    });
    dump(suite, "authorization twice", |request| {
        request
            .header("Authorization", "Basic dXNlcjpwYXNz")
            .param("PHP_AUTH_USER", "other")
    });
    dump(suite, "redirected authorization", |request| {
        request.param("REDIRECT_HTTP_AUTHORIZATION", "Basic dXNlcjpwYXNz")
    });
}

fn params(suite: &mut Suite) {
    dump(suite, "no query string param", |request| {
        request.without("QUERY_STRING")
    });
    dump(suite, "query string only in the URI", |request| {
        request.param("QUERY_STRING", "")
    });
    dump(suite, "no request URI", |request| {
        request.without("REQUEST_URI")
    });
    dump(suite, "no script name", |request| {
        request.without("SCRIPT_NAME")
    });
    dump(suite, "no document root", |request| {
        request.without("DOCUMENT_ROOT")
    });
    dump(suite, "no redirect status", |request| {
        request.without("REDIRECT_STATUS")
    });
    dump(suite, "redirect status 404", |request| {
        request.param("REDIRECT_STATUS", "404")
    });
    dump(suite, "redirect variables", |request| {
        request
            .param("REDIRECT_URL", "/old")
            .param("REDIRECT_QUERY_STRING", "q=1")
            .param("REDIRECT_REMOTE_USER", "u")
    });
    dump(suite, "param twice", |request| {
        request.another_param("SERVER_NAME", "other.test")
    });
    dump(suite, "param in small letters", |request| {
        request.param("server_name", "other.test")
    });
    dump(suite, "param without name", |request| {
        request.another_param("", "value")
    });
    dump(suite, "param without name and value", |request| {
        request.another_param("", "")
    });
    dump(suite, "names with brackets", |request| {
        request
            .param("A[b]", "1")
            .param("A[c]", "2")
            .param("B[", "3")
    });
    dump(suite, "names with spaces and dots", |request| {
        request.param("A B", "1").param(" C", "2").param("D.E", "3")
    });
    dump(suite, "name with zero byte", |request| {
        request.another_param(b"A\0B", "1")
    });
    dump(suite, "value with zero byte", |request| {
        request.another_param("A_ZERO", b"x\0y")
    });
    dump(suite, "binary name", |request| {
        request.another_param(b"A\xff", "1")
    });
    dump(suite, "names of PHP's own", |request| {
        request
            .param("PHP_SELF", "/self")
            .param("argv", "x")
            .param("REQUEST_TIME", "1")
            .param("GLOBALS", "x")
    });
    dump(suite, "names of the environment", |request| {
        request
            .param("HOME", "/x")
            .param("PATH", "/y")
            .param("TZ", "Asia/Tokyo")
    });
    dump(suite, "arguments in the query string", |request| {
        request.param("QUERY_STRING", "a+b+c")
    });
    dump(suite, "options in the query string", |request| {
        request.param("QUERY_STRING", "-s+-d+display_errors=1")
    });
    dump(suite, "gateway interface and software", |request| {
        request
            .param("GATEWAY_INTERFACE", "CGI/1.2")
            .param("SERVER_SOFTWARE", "Apache/2.4.62 (Debian)")
    });
}
