//! From params to a script: PATH_INFO, missing files, directories, extensions.

use super::suite::Suite;
use crate::support::client::Request;

pub(crate) fn cases(suite: &mut Suite) {
    suite.file("dir/index.php", "<?php echo 'index of dir';");
    suite.file(
        "dir/inner.php",
        "<?php echo __FILE__, ' ', __DIR__, ' ', getcwd(), ' ', $_SERVER['PATH_INFO'] ?? '-';",
    );
    suite.file("page.html", "<html><?php echo 1 ?></html>");
    suite.file("page.php5", "<?php echo 5;");
    suite.file("archive.phar", "<?php echo 'phar';");
    suite.file("CAPITAL.PHP", "<?php echo 'capital';");
    suite.file("noextension", "<?php echo 'none';");
    suite.file(".php", "<?php echo 'only the extension';");
    suite.file("a.php.txt", "<?php echo 'text';");
    suite.file("empty.php", "");
    suite.file("space in name.php", "<?php echo __FILE__;");
    suite.file("ünïcode.php", "<?php echo __FILE__;");
    suite.file(
        "script.php/below.php",
        "<?php echo 'below a directory named like a script';",
    );
    std::os::unix::fs::symlink(
        suite.root().join("dir/inner.php"),
        suite.root().join("link.php"),
    )
    .unwrap();
    std::os::unix::fs::symlink(suite.root().join("dir"), suite.root().join("linked")).unwrap();
    std::os::unix::fs::symlink(
        suite.root().join("nowhere.php"),
        suite.root().join("dangling.php"),
    )
    .unwrap();

    let paths = [
        "/dump.php",
        "/dump.php/",
        "/dump.php/info",
        "/dump.php/info/more.php",
        "/dump.php/info%20x",
        "/dump.php//info",
        "/dump.php/../dump.php",
        "/dump.php/info?a=1",
        "//dump.php",
        "/./dump.php",
        "/dir/../dump.php",
        "/dir/inner.php",
        "/dir/inner.php/info",
        "/dir",
        "/dir/",
        "/dir/index.php",
        "/linked/inner.php/info",
        "/link.php",
        "/link.php/info",
        "/dangling.php",
        "/missing.php",
        "/missing.php/info",
        "/missing/dir/file.php",
        "/missing",
        "/page.html",
        "/page.html/x.php",
        "/page.php5",
        "/archive.phar",
        "/CAPITAL.PHP",
        "/noextension",
        "/.php",
        "/a.php.txt",
        "/empty.php",
        "/empty.php/info",
        "/space in name.php",
        "/ünïcode.php",
        "/script.php",
        "/script.php/below.php",
        "/script.php/below.php/info",
        "/script.php/missing.php",
        "/",
        "",
    ];
    for path in paths {
        let request = suite.get(path);
        suite.case(&format!("whole {path:?}"), request);
        if let Some((script, info)) = path.split_once(".php/") {
            let (script, info) = (format!("{script}.php"), format!("/{info}"));
            let request = split(suite.get(path), &script, &info);
            suite.case(&format!("split {path:?}"), request);
            let translated = format!("{}{info}", suite.root().display());
            let request =
                split(suite.get(path), &script, &info).param("PATH_TRANSLATED", translated);
            suite.case(&format!("split and translated {path:?}"), request);
        }
    }
    params(suite);
    servers(suite);
    names(suite);
}

/// As with nginx's `fastcgi_split_path_info`.
fn split(request: Request, script: &str, info: &str) -> Request {
    let root = request
        .params()
        .iter()
        .find(|(name, _)| name == b"DOCUMENT_ROOT")
        .unwrap()
        .1
        .clone();
    let root = String::from_utf8(root).unwrap();
    request
        .param("SCRIPT_FILENAME", format!("{root}{script}"))
        .param("SCRIPT_NAME", script)
        .param("PATH_INFO", info)
}

fn params(suite: &mut Suite) {
    let root = suite.root().display().to_string();
    let script = format!("{root}/dump.php");
    let request = suite.get("/dump.php");
    let cases = [
        ("no params", request.clone().without_params()),
        (
            "no script filename",
            request.clone().without("SCRIPT_FILENAME"),
        ),
        (
            "empty script filename",
            request.clone().param("SCRIPT_FILENAME", ""),
        ),
        (
            "only translated",
            request
                .clone()
                .without("SCRIPT_FILENAME")
                .param("PATH_TRANSLATED", &script),
        ),
        (
            "relative script filename",
            request.clone().param("SCRIPT_FILENAME", "www/dump.php"),
        ),
        (
            "script filename with zero byte",
            request
                .clone()
                .param("SCRIPT_FILENAME", format!("{script}\0.txt")),
        ),
        (
            "long script filename",
            request.clone().param(
                "SCRIPT_FILENAME",
                format!("{root}/{}.php", "x".repeat(5000)),
            ),
        ),
        (
            "script filename with a query",
            request
                .clone()
                .param("SCRIPT_FILENAME", format!("{script}?a=1")),
        ),
        (
            "script as a URL",
            request
                .clone()
                .param("SCRIPT_FILENAME", "http://192.0.2.1/x.php"),
        ),
        (
            "script as a stream",
            request
                .clone()
                .param("SCRIPT_FILENAME", "php://input")
                .form("<?php echo 1;"),
        ),
        (
            "script as data",
            request
                .clone()
                .param("SCRIPT_FILENAME", "data:text/plain,x.php"),
        ),
        (
            "path info that does not fit",
            request.clone().param("PATH_INFO", "/other"),
        ),
        ("empty path info", request.clone().param("PATH_INFO", "")),
        (
            "path info without slash",
            split(request.clone(), "/dump.php", "info"),
        ),
        (
            "translated elsewhere",
            request.clone().param("PATH_TRANSLATED", "/etc/passwd"),
        ),
        (
            "document root elsewhere",
            request.clone().param("DOCUMENT_ROOT", "/srv/other"),
        ),
        (
            "document root with slash",
            request.clone().param("DOCUMENT_ROOT", format!("{root}/")),
        ),
        (
            "orig names",
            request
                .clone()
                .param("ORIG_SCRIPT_NAME", "/x")
                .param("ORIG_PATH_INFO", "/y"),
        ),
        (
            "context prefix",
            request
                .clone()
                .param("CONTEXT_PREFIX", "/app")
                .param("CONTEXT_DOCUMENT_ROOT", &root),
        ),
    ];
    for (name, request) in cases {
        suite.case(name, request);
    }
}

/// What Apache and others send.
fn servers(suite: &mut Suite) {
    let root = suite.root().display().to_string();
    let apache = suite
        .get("/dump.php")
        .param("SERVER_SOFTWARE", "Apache/2.4.62 (Debian)");
    let urls = [
        (
            "proxy URL",
            format!("proxy:fcgi://localhost:9000{root}/dump.php"),
        ),
        (
            "proxy URL without port",
            format!("proxy:fcgi://localhost{root}/dump.php"),
        ),
        (
            "proxy URL with info",
            format!("proxy:fcgi://localhost:9000{root}/dump.php/info"),
        ),
        (
            "proxy URL with query",
            format!("proxy:fcgi://localhost:9000{root}/dump.php?x=1"),
        ),
        (
            "proxy URL with info and query",
            format!("proxy:fcgi://localhost:9000{root}/dump.php/info?x=1"),
        ),
        (
            "proxy URL of a socket",
            format!("proxy:fcgi://localhost/{root}/dump.php"),
        ),
        (
            "proxy balancer",
            format!("proxy:balancer://pool{root}/dump.php"),
        ),
        (
            "proxy balancer with query",
            format!("proxy:balancer://pool{root}/dump.php?x=1"),
        ),
        ("proxy URL and nothing", "proxy:fcgi://localhost".to_owned()),
        (
            "proxy of another kind",
            format!("proxy:http://localhost{root}/dump.php"),
        ),
        (
            "proxy URL of a missing file",
            format!("proxy:fcgi://localhost:9000{root}/missing.php"),
        ),
        (
            "proxy URL with a space",
            format!("proxy:fcgi://localhost:9000{root}/space%20in%20name.php"),
        ),
        (
            "filename with percent",
            format!("{root}/space%20in%20name.php"),
        ),
    ];
    for (name, url) in urls {
        suite.case(name, apache.clone().param("SCRIPT_FILENAME", &url));
        let with_info = apache
            .clone()
            .param("SCRIPT_FILENAME", &url)
            .param("PATH_INFO", "/info");
        suite.case(&format!("{name}, path info"), with_info);
    }
    let action = apache
        .clone()
        .param("REDIRECT_URL", "/page.html")
        .param("PATH_INFO", "/page.html");
    let action = action
        .param("PATH_TRANSLATED", format!("{root}/page.html"))
        .param("REDIRECT_HANDLER", "php");
    suite.case(
        "Apache action",
        action
            .param("SCRIPT_NAME", "/php-fcgi")
            .param("REDIRECT_STATUS", "200"),
    );
    let index = apache
        .param("SCRIPT_FILENAME", format!("{root}/dir/index.php"))
        .param("SCRIPT_NAME", "/dir/index.php");
    suite.case(
        "Apache directory index",
        index.param("REQUEST_URI", "/dir/"),
    );
    let iis = suite
        .get("/dump.php")
        .param("SERVER_SOFTWARE", "Microsoft-IIS/10.0");
    suite.case(
        "IIS path info",
        iis.param("PATH_INFO", "/dump.php")
            .param("PATH_TRANSLATED", format!("{root}/dump.php")),
    );
}

fn names(suite: &mut Suite) {
    suite.script(
        "file names in the script",
        "<?php echo __FILE__, __LINE__, __DIR__, $_SERVER['PHP_SELF'], getcwd();",
    );
    suite.script("included files", "<?php print_r(get_included_files()); include 'dir/inner.php'; print_r(get_included_files());");
    suite.script(
        "relative include",
        "<?php chdir('/'); var_dump((include 'dir/inner.php') !== false, @include 'missing.php');",
    );
    suite.script("script's own functions", "<?php var_dump(getmyinode() === fileinode(__FILE__), getlastmod() === filemtime(__FILE__), get_current_user(), getmyuid(), getmygid());");
    suite.script("shebang", "#!/usr/bin/php\n<?php echo __LINE__;");
    suite.script("byte order mark", "\u{feff}<?php echo __LINE__;");
    suite.script("halt compiler", "<?php echo file_get_contents(__FILE__, false, null, __COMPILER_HALT_OFFSET__); __halt_compiler();the data");
    suite.script("only text", "no PHP at all\n");
    suite.script("end tag with newline", "<?php echo 1 ?>\n\n<?= 2 ?>\nend");
}
