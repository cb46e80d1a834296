//! Settings per request: PHP_VALUE, PHP_ADMIN_VALUE, .user.ini.

use super::suite::Suite;

pub(crate) fn cases(suite: &mut Suite) {
    suite.file("ini.php", SHOW);
    let values = [
        ("one", "memory_limit=64M"),
        ("two", "memory_limit=64M\nprecision=5"),
        (
            "with line ends of Windows",
            "memory_limit=64M\r\nprecision=5\r\n",
        ),
        ("with blanks", "  memory_limit  =  64M  \n\n precision = 5"),
        ("quoted", "date.timezone=\"Asia/Tokyo\""),
        ("quoted with spaces", "user_agent = \"a b = c\""),
        ("empty", "date.timezone="),
        ("nothing", ""),
        ("without equals", "memory_limit"),
        ("only equals", "=64M"),
        ("unknown", "no.such.setting=1"),
        ("on and off", "display_errors=on\nlog_errors=off"),
        ("number", "display_errors=1\nhtml_errors=0"),
        ("of the system", "allow_url_fopen=0\nopcache.enable=0"),
        (
            "per directory",
            "upload_max_filesize=1K\npost_max_size=1K\nauto_prepend_file=",
        ),
        ("comment", "; memory_limit=64M\n# precision=5"),
        ("with a section", "[PHP]\nmemory_limit=64M"),
        ("twice", "precision=5\nprecision=6"),
        ("constant", "error_reporting=E_ALL & ~E_NOTICE"),
        ("array", "a[]=1\nprecision=5"),
        ("output buffering", "output_buffering=0\nimplicit_flush=1"),
        (
            "mime type",
            "default_mimetype=text/plain\ndefault_charset=latin1",
        ),
        ("open_basedir", "open_basedir=/usr"),
        ("extension", "extension=nonsense.so"),
        ("error", "memory_limit=\"64M"),
    ];
    for (name, value) in values {
        let request = suite.get("/ini.php").param("PHP_VALUE", value);
        suite.case(&format!("value {name}"), request);
        let request = suite.get("/ini.php").param("PHP_ADMIN_VALUE", value);
        suite.case(&format!("admin value {name}"), request);
        let plain = suite.get("/ini.php");
        suite.case(&format!("nothing left of {name}"), plain);
    }
    let both = suite
        .get("/ini.php")
        .param("PHP_VALUE", "memory_limit=64M\nprecision=6");
    suite.case("both", both.param("PHP_ADMIN_VALUE", "memory_limit=32M"));
    let large = suite.get("/ini.php").param(
        "PHP_VALUE",
        format!("user_agent=\"{}\"", "x".repeat(10_000)),
    );
    suite.case("large", large);
    let set = suite.file("set.php", "<?php var_dump(ini_set('memory_limit', '48M'), ini_get('memory_limit'), ini_set('precision', '7')); ini_restore('memory_limit'); echo ini_get('memory_limit');");
    assert!(set.exists());
    let request = suite.get("/set.php").param("PHP_VALUE", "memory_limit=64M");
    suite.case("value then ini_set", request);
    let request = suite
        .get("/set.php")
        .param("PHP_ADMIN_VALUE", "memory_limit=64M");
    suite.case("admin value then ini_set", request);

    suite.file("prepend.php", "<?php echo 'prepended ';");
    suite.file("append.php", "<?php echo ' appended';");
    let root = suite.root().display().to_string();
    let request = suite.get("/ini.php");
    suite.case(
        "prepended",
        request.param(
            "PHP_VALUE",
            format!("auto_prepend_file={root}/prepend.php\nauto_append_file=append.php"),
        ),
    );
    let request = suite
        .get("/ini.php")
        .param("PHP_VALUE", "auto_prepend_file=missing.php");
    suite.case("prepended and missing", request);
    let request = suite
        .get("/ini.php")
        .form("a=1&b=2&c=3")
        .param("PHP_VALUE", "max_input_vars=2\nenable_post_data_reading=0");
    suite.case("settings of the input", request);
    user_ini(suite);
}

fn user_ini(suite: &mut Suite) {
    suite.file(
        "one/.user.ini",
        "precision=5\nmemory_limit=64M\ndisplay_errors=1\n",
    );
    suite.file(
        "one/two/.user.ini",
        "precision=6\n[section]\ndate.timezone=Asia/Tokyo\n",
    );
    suite.file(
        "system/.user.ini",
        "allow_url_fopen=0\nopcache.enable=0\nprecision=4\n",
    );
    suite.file("broken/.user.ini", "precision=5\n(((\nmemory_limit=64M\n");
    suite.file("perdir/.user.ini", "upload_max_filesize=1K\nauto_prepend_file=prepended.php\noutput_buffering=0\nshort_open_tag=1\n");
    suite.file("perdir/prepended.php", "<?php echo 'prepended ';");
    for directory in [
        "one",
        "one/two",
        "one/three",
        "system",
        "broken",
        "perdir",
        "none",
    ] {
        suite.file(&format!("{directory}/ini.php"), SHOW);
        for (name, root) in [
            ("", None),
            (" with a root below", Some("one")),
            (" with a root elsewhere", Some("other")),
        ] {
            let mut request = suite.get(&format!("/{directory}/ini.php"));
            if let Some(root) = root {
                request = request.param(
                    "DOCUMENT_ROOT",
                    format!("{}/{root}", suite.root().display()),
                );
            }
            suite.case(&format!("user ini in {directory}{name}"), request);
        }
    }
    let value = suite
        .get("/one/ini.php")
        .param("PHP_VALUE", "precision=9")
        .param("PHP_ADMIN_VALUE", "memory_limit=32M");
    suite.case("user ini and value", value);
    let rootless = suite.get("/one/two/ini.php").without("DOCUMENT_ROOT");
    suite.case("user ini without document root", rootless);
}

const SHOW: &str = r"<?php
foreach (['memory_limit', 'precision', 'date.timezone', 'user_agent', 'display_errors', 'log_errors', 'html_errors',
    'allow_url_fopen', 'opcache.enable', 'upload_max_filesize', 'post_max_size', 'disable_functions', 'error_reporting',
    'output_buffering', 'implicit_flush', 'default_mimetype', 'auto_prepend_file', 'open_basedir', 'a',
    'no.such.setting', 'max_input_vars', 'short_open_tag'] as $name) {
    $access = ini_get_all()[$name]['access'] ?? '';
    echo $name, ' = ', var_export(ini_get($name), true), ' ', var_export(get_cfg_var($name), true), ' ', $access, PHP_EOL;
}
echo strrev('abc'), date_default_timezone_get(), 1 / 3, error_reporting(), ob_get_level(), PHP_EOL;
print_r($_POST);
$names = array_keys($_SERVER);
echo implode(' ', preg_grep('/^PHP_(?!INI)/', $names)), PHP_EOL, $undefined;
";
