//! php.ini's `[PATH=…]` and `[HOST=…]` sections, and `.user.ini` and PHP_VALUE on top of them.

use super::suite::Suite;

/// The end of a php.ini; `{root}` is the document root.
pub(crate) const INI: &[&str] = &[
    "precision=10",
    "[PATH={root}/one]",
    "precision=5",
    "memory_limit=64M",
    "user_agent=one",
    "allow_url_fopen=0",
    "auto_prepend_file={root}/prepend.php",
    "no.such.setting=1",
    "[PATH={root}/one/two]",
    "precision=6",
    "open_basedir={root}",
    "[PATH={root}/slash/]",
    "precision=7",
    "[HOST=example.org]",
    "user_agent=host",
    "memory_limit=96M",
    "post_max_size=2K",
    "[HOST=Upper.Example.ORG]",
    "user_agent=upper",
    "[HOST=www.example.org:8080]",
    "user_agent=port",
];

pub(crate) fn cases(suite: &mut Suite) {
    suite.file("prepend.php", "<?php echo 'prepended ';");
    suite.file("user/.user.ini", "precision=8\nuser_agent=user\n");
    suite.file(
        "one/user/.user.ini",
        "precision=8\nmemory_limit=80M\nallow_url_fopen=1\n",
    );
    let directories = [
        "",
        "one",
        "one/two",
        "one/two/three",
        "one/user",
        "onefold",
        "slash",
        "user",
        "none",
    ];
    let hosts = [
        "example.org",
        "EXAMPLE.org",
        "upper.example.org",
        "www.example.org",
        "www.example.org:8080",
        "sub.example.org",
        "",
    ];
    for directory in directories {
        let script = format!("/{directory}/ini.php").replace("//", "/");
        suite.file(&script[1..], SHOW);
        let request = suite.get(&script);
        suite.case(&format!("section of {script}"), request.clone());
        suite.case(
            &format!("section of {script} and values"),
            request
                .param("PHP_VALUE", "precision=9\nmemory_limit=48M")
                .param("PHP_ADMIN_VALUE", "user_agent=admin"),
        );
    }
    for host in hosts {
        for script in ["/ini.php", "/one/ini.php", "/user/ini.php"] {
            let request = suite.get(script).param("SERVER_NAME", host);
            suite.case(&format!("section of host {host:?} at {script}"), request);
        }
    }
    let long = suite.get("/one/ini.php").without("SERVER_NAME");
    suite.case("section without server name", long);
    let form = suite
        .get("/ini.php")
        .param("SERVER_NAME", "example.org")
        .form(format!("a={}", "x".repeat(5000)));
    suite.case("section that limits the form", form);
    let missing = suite.get("/one/missing.php");
    suite.case("section of a missing script", missing);
    let info = suite.get("/one/ini.php/two/ini.php");
    suite.case("section with path info", info);
    let plain = suite.get("/ini.php");
    suite.case("nothing left of sections", plain);
}

const SHOW: &str = r"<?php
foreach (['precision', 'memory_limit', 'user_agent', 'allow_url_fopen', 'auto_prepend_file', 'open_basedir',
    'post_max_size', 'no.such.setting'] as $name) {
    $access = ini_get_all()[$name]['access'] ?? '';
    echo $name, ' = ', var_export(ini_get($name), true), ' ', $access, ' ', var_export(get_cfg_var($name), true), PHP_EOL;
}
echo 1 / 3, ' ', count($_POST), ' ', var_export(@ini_set('user_agent', 'own'), true), PHP_EOL;
";
