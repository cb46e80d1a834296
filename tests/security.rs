//! Tricks with paths: what is no script must not run, whatever a request calls it.
//!
//! Each answer is also asked of php-fpm: what it refuses, we refuse.

use std::fs;
use std::path::Path;

use crate::support::client::{Request, Response};
use crate::support::fpm::Fpm;
use crate::support::server::Server;

/// What an uploaded file says if it is run.
const UPLOADED: &str = "GIF89a<?php echo 'exe', 'cuted';";

/// Both servers on one document root.
struct Site {
    server: Server,
    fpm: Fpm,
}

impl Site {
    fn new(ini: &[&str]) -> Self {
        let mut builder = Server::builder();
        for line in ini {
            builder = builder.ini(line);
        }
        let server = builder.start();
        let root = server.root();
        let lines: Vec<String> = ini.iter().map(ToString::to_string).collect();
        let fpm = Fpm::start(&lines, "", server.directory());
        fs::create_dir(root.join("uploads")).unwrap();
        for name in [
            "picture.gif",
            "picture.php.gif",
            "CAPITAL.PHP",
            "noextension",
        ] {
            fs::write(root.join("uploads").join(name), UPLOADED).unwrap();
        }
        server.php(
            "index.php",
            "<?php echo 'index ', $_SERVER['PATH_INFO'] ?? '';",
        );
        server.php(
            "below/inner.php",
            "<?php echo 'inner ', ltrim($_SERVER['PATH_INFO'] ?? '', '/');",
        );
        Self { server, fpm }
    }

    fn root(&self) -> &Path {
        self.server.root()
    }

    /// As nginx sends it without `fastcgi_split_path_info`.
    fn whole(&self, path: &str) -> Request {
        self.server.request(path)
    }

    /// As with it.
    fn split(&self, script: &str, info: &str) -> Request {
        self.server
            .request(script)
            .param("PATH_INFO", info)
            .param("REQUEST_URI", format!("{script}{info}"))
            .param("DOCUMENT_URI", format!("{script}{info}"))
    }

    /// The script by its whole name, which may be anything.
    fn named(&self, script: impl AsRef<[u8]>) -> Request {
        self.server
            .request("/index.php")
            .param("SCRIPT_FILENAME", script)
    }

    /// fe-php refuses the request with this status, and php-fpm does not run an upload either.
    fn refuses(&self, what: &str, request: &Request, status: u16) {
        self.refuses_alone(what, request, status);
        let other = self.fpm.connect().exchange(request);
        assert_eq!(other.status, status, "php-fpm, {what}: {other:?}");
        assert!(!runs(&other), "php-fpm, {what}: {other:?}");
    }

    /// The same where php-fpm is not to be followed.
    fn refuses_alone(&self, what: &str, request: &Request, status: u16) {
        let answer = self.server.send(request);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert!(!runs(&answer), "{what}: {answer:?}");
    }
}

fn runs(answer: &Response) -> bool {
    let contains = |text: &[u8]| answer.stdout.windows(text.len()).any(|part| part == text);
    let body = String::from_utf8_lossy(&answer.body);
    contains(b"executed")
        || body.contains("executed")
        || body.contains("index")
        || body.contains("inner")
}

#[test]
fn path_info_does_not_run_an_uploaded_picture() {
    let site = Site::new(&[]);
    for path in [
        "/uploads/picture.gif/x.php",
        "/uploads/picture.gif/index.php",
        "/uploads/picture.gif/.php",
        "/uploads/picture.php.gif",
        "/uploads/picture.php.gif/x.php",
        "/uploads/noextension/x.php",
    ] {
        site.refuses(path, &site.whole(path), 403);
    }
    for script in ["/uploads/picture.gif", "/uploads/picture.php.gif"] {
        site.refuses(script, &site.split(script, "/x.php"), 403);
    }
}

#[test]
fn without_fix_pathinfo_there_is_no_file_by_that_name() {
    let site = Site::new(&["cgi.fix_pathinfo = 0"]);
    for path in ["/uploads/picture.gif/x.php", "/index.php/x.php"] {
        site.refuses(path, &site.whole(path), 404);
    }
    let picture = site.split("/uploads/picture.gif", "/x.php");
    site.refuses("split", &picture, 403);
}

#[test]
fn a_slash_after_the_name_of_a_script_is_no_other_script() {
    let site = Site::new(&[]);
    // It is the script itself: harmless, and as under php-fpm.
    let answer = site.server.send(&site.whole("/index.php/"));
    assert_eq!(String::from_utf8_lossy(&answer.body), "index ");
    let other = site.fpm.connect().exchange(&site.whole("/index.php/"));
    assert_eq!(other.body, answer.body);
    for path in ["/uploads/picture.gif/", "/uploads/picture.gif/.php/"] {
        site.refuses(path, &site.whole(path), 403);
    }
    fs::create_dir(site.root().join("directory.php")).unwrap();
    for path in ["/directory.php", "/directory.php/"] {
        let answer = site.server.send(&site.whole(path));
        assert!(answer.status >= 400 && !runs(&answer), "{path}: {answer:?}");
    }
}

#[test]
fn a_path_does_not_climb_out() {
    let site = Site::new(&[]);
    fs::write(site.server.directory().join("outside.php"), UPLOADED).unwrap();
    let root = site.root().display();
    for path in [
        format!("{root}/../outside.php"),
        format!("{root}/below/../index.php"),
        format!("{root}/below/.."),
        format!("{root}/../outside.php/x.php"),
    ] {
        site.refuses_alone(&path, &site.named(&path), 404);
        let other = site.fpm.connect().exchange(&site.named(&path));
        assert!(!runs(&other), "php-fpm, {path}: {other:?}");
    }
    // Behind the name of a script they name no file.
    let behind = site.whole("/below/inner.php/../../index.php");
    let answer = site.server.send(&behind);
    assert_eq!(answer.body, b"inner ");
    assert_eq!(site.fpm.connect().exchange(&behind).body, answer.body);
    // Dots that mean nothing.
    fs::write(site.root().join("a..b.php"), "<?php echo 'dots';").unwrap();
    assert_eq!(site.server.get("/a..b.php").body, b"dots");
}

#[test]
fn a_nul_byte_does_not_hide_an_extension() {
    let site = Site::new(&[]);
    let root = site.root().display();
    for path in [
        format!("{root}/uploads/picture.gif\0.php"),
        format!("{root}/uploads/picture.gif\0/x.php"),
        format!("{root}/uploads/picture.gif/\0.php"),
        format!("{root}/index.php\0.gif"),
        format!("\0{root}/index.php"),
    ] {
        // php-fpm takes what is before the NUL for the name.
        site.refuses_alone(&format!("{path:?}"), &site.named(&path), 404);
    }
    for path in [
        "/uploads/picture.gif%00.php",
        "/uploads/picture.gif%00/x.php",
    ] {
        site.refuses(path, &site.whole(path), 404);
    }
}

#[test]
fn extensions_are_bytes_and_fold_no_case() {
    let site = Site::new(&[]);
    site.refuses("capital", &site.whole("/uploads/CAPITAL.PHP"), 403);
    site.refuses("capital", &site.whole("/uploads/CAPITAL.PHP/x.php"), 403);
    // Letters whose other case has another length (so that a position found in folded text is wrong in the text itself),
    // and letters that look like, or fold to, those of an extension.
    for name in [
        "\u{130}\u{130}\u{130}\u{130}.php.gif",
        "\u{23a}\u{23a}\u{23a}\u{23a}.gif",
        "\u{212a}.gif",
        "a.\u{ff50}\u{ff48}\u{ff50}",
        "a.ph\u{3c1}",
        "a.php\u{200b}",
        "a.php ",
        "a.php.",
        "a.ph\u{0}70",
    ] {
        let name = name.replace('\0', "%");
        fs::write(site.root().join("uploads").join(&name), UPLOADED).unwrap();
        for path in [format!("/uploads/{name}"), format!("/uploads/{name}/x.php")] {
            site.refuses(&path, &site.whole(&path), 403);
        }
    }
}

#[test]
fn a_script_is_a_file_and_no_stream() {
    let site = Site::new(&["allow_url_include = 1"]);
    fs::write(site.root().join("uploads/x.php"), "<?php echo 'plain';").unwrap();
    let root = site.root().display().to_string();
    for script in [
        "data:text/plain,<?php echo 'exe', 'cuted'; // .php".to_owned(),
        "data://text/plain,<?php echo 'exe', 'cuted'; // .php".to_owned(),
        "php://filter/resource=uploads/picture.gif/.php".to_owned(),
        format!("file://{root}/uploads/picture.gif/x.php"),
        format!("phar://{root}/uploads/picture.gif/x.php"),
        format!("glob://{root}/uploads/picture.*/x.php"),
    ] {
        let body = "<?php echo 'exe', 'cuted';";
        let answer = site.server.send(&site.named(&script).form(body));
        assert!(matches!(answer.status, 403 | 404), "{script}: {answer:?}");
        assert!(!runs(&answer), "{script}: {answer:?}");
    }
    let input = site
        .named("php://input#.php")
        .form("<?php echo 'exe', 'cuted';");
    assert_eq!(site.server.send(&input).status, 404);
}
