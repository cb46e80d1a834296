//! Names and values in query strings, cookies and forms.

use super::suite::Suite;

pub(crate) fn cases(suite: &mut Suite) {
    for (index, query) in QUERIES.iter().enumerate() {
        let request = suite.get("/dump.php").param("QUERY_STRING", query);
        suite.case(
            &format!("query {index} {query:?}"),
            request.param("REQUEST_URI", format!("/dump.php?{query}")),
        );
    }
    for (index, query) in QUERIES.iter().enumerate() {
        let request = suite.get("/dump.php").form(query);
        suite.case(&format!("form {index} {query:?}"), request);
    }
    for cookie in COOKIES {
        let request = suite
            .get("/dump.php?a=query")
            .form("a=form&b=form")
            .header("Cookie", cookie);
        suite.case(&format!("cookie {cookie:?}"), request);
    }
    let latin = suite.get("/dump.php").header("Cookie", b"a=\xe9; \xff=1");
    suite.case("binary cookie", latin);

    let deep = format!("a{}=1", "[x]".repeat(70));
    let many: String = (0..1100)
        .map(|number| format!("v{number}={number}&"))
        .collect();
    let long = format!("a={}", "x".repeat(20_000));
    for (name, text) in [("deep", &deep), ("many", &many), ("long", &long)] {
        let query = suite.get("/dump.php").param("QUERY_STRING", text);
        suite.case(&format!("{name} query"), query);
        let form = suite.get("/dump.php").form(text);
        suite.case(&format!("{name} form"), form);
        let cookie = suite
            .get("/dump.php")
            .header("Cookie", text.replace('&', "; "));
        suite.case(&format!("{name} cookie"), cookie);
    }
    let raw = suite
        .get("/dump.php")
        .param("QUERY_STRING", b"a=\xff&\xe9=1&b=\xc3\xa9");
    suite.case("raw bytes in the query string", raw);
}

const QUERIES: &[&str] = &[
    "",
    "a=1",
    "a=1&a=2",
    "a[]=1&a[]=2",
    "a[b][c]=1&a[b][d]=2",
    "a[b][]=",
    "a[=1",
    "a]=1",
    "a[b=1",
    "a[b]c=1",
    "a[[b]=1",
    "a[b]]=1",
    "a[ b]=1&a[b ]=2",
    "[a]=1",
    "a.b=1&c d=2&e+f=3&g%2eh=4",
    " a=1&%20b=2&+c=3",
    "%00=1",
    "a%00b=1",
    "a=%00&b=x%00y",
    "a[%00]=1&a[b%00c]=2",
    "=1",
    "&&&",
    "a",
    "a&b",
    "a=b=c",
    "a=%zz&b=%&c=%1",
    "a=%E4&b=%C3%A4",
    "%C3%A4=1&%FF=2",
    "a;b=1",
    "a=1;b=2",
    "a=+%20%2B",
    "GLOBALS=1",
    "GLOBALS[x]=1",
    "_SERVER[x]=1&_GET[y]=2",
    "this=1&_COOKIE=1",
    "0=a&1=b&01=c&-1=d",
    "a[0]=x&a[00]=y&a[-1]=z&a[]=w",
    "a=1&a[]=2&a[b]=3",
    "a[]=1&a=2",
    "a%5Bb%5D=1&a%5bc%5d=2",
];

const COOKIES: &[&str] = &[
    "",
    "a=1",
    "a=1; b=2",
    "a=1;b=2",
    "a=1 ; b = 2",
    "a=1, b=2",
    "a=1; a=2",
    "a[]=1; a[]=2",
    "a[x]=1; a[y]=2",
    "a=x%20y; b=x+y; c=%C3%A4",
    "a; b",
    "=1; ;",
    "a.b=1; c d=2",
    "__Host-a=1; __Secure-b=2",
    "__Host-a%00=1; _%48ost-b=2; ..Host-c=3",
    "_ _Host-d=1; [__Host-e=2",
    "a=\"quoted\"; b='x'",
    "a=1=2=3",
    "$Version=1; $Path=/",
];
