//! `max_execution_time`: it ends what takes too long, says so with the right number, and no other request.

use crate::support::server::{Builder, Server};

/// Uses processor time until that of the process has grown by `$ms`.
const BURN: &str = "<?php
function burn($ms) { $end = cpu() + $ms; while (cpu() < $end) { for ($i = 0; $i < 1000; $i++) { md5($i); } } }
function cpu() { $u = getrusage();
    return ($u['ru_utime.tv_sec'] + $u['ru_stime.tv_sec']) * 1000 + ($u['ru_utime.tv_usec'] + $u['ru_stime.tv_usec']) / 1000; }
";

const EXCEEDED: &str = "Maximum execution time of 1 second exceeded";

fn limit(seconds: u32) -> Builder {
    Server::builder()
        .ini(&format!("max_execution_time={seconds}"))
        .ini("display_errors=1")
        .ini("html_errors=0")
}

fn script(s: &Server, name: &str, source: &str) {
    s.php(name, &format!("{BURN}{source}"));
}

server!(an_endless_loop_ends_at_the_limit, limit(1), |s| {
    script(&s, "loop.php", "while (true) {}");
    for _ in 0..2 {
        let text = s.get("/loop.php").text();
        assert!(text.contains(EXCEEDED), "{text}");
    }
});

server!(a_post_has_the_limit_too, limit(1), |s| {
    script(&s, "loop.php", "while (true) {}");
    let request = s.request("/loop.php").form("a=1");
    let text = s.send(&request).text();
    assert!(text.contains(EXCEEDED), "{text}");
});

server!(
    an_endless_shutdown_function_ends_at_the_limit,
    limit(1),
    |s| {
        script(
            &s,
            "shutdown.php",
            "register_shutdown_function(function () { while (true) {} });",
        );
        let text = s.get("/shutdown.php").text();
        assert!(text.contains(EXCEEDED), "{text}");
    }
);

server!(a_script_sets_a_shorter_limit, limit(30), |s| {
    for before in ["", "burn(50);"] {
        script(
            &s,
            "shorter.php",
            &format!("{before} set_time_limit(1); while (true) {{}}"),
        );
        let text = s.get("/shorter.php").text();
        assert!(text.contains(EXCEEDED), "{before}: {text}");
    }
});

server!(a_script_takes_its_limit_away, limit(1), |s| {
    for before in ["", "burn(50);"] {
        script(
            &s,
            "none.php",
            &format!("{before} set_time_limit(0); burn(1500); echo 'done';"),
        );
        assert_eq!(s.get("/none.php").text(), "done", "{before}");
    }
});

server!(the_limit_counts_anew_for_each_request, limit(1), |s| {
    script(&s, "burn.php", "burn(400); echo 'done';");
    // Whatever a script does to its own limit, nothing is left of it for the next ones.
    for source in [
        "echo 'x';",
        "set_time_limit(1); echo 'x';",
        "burn(20); set_time_limit(1); echo 'x';",
        "register_shutdown_function(function () { set_time_limit(1); burn(20); }); echo 'x';",
        "ini_set('max_execution_time', '1'); echo 'x';",
        "burn(20); echo 'x';",
    ] {
        script(&s, "before.php", source);
        assert_eq!(s.get("/before.php").text(), "x", "{source}");
        for _ in 0..4 {
            assert_eq!(s.get("/burn.php").text(), "done", "after {source}");
        }
    }
});

server!(
    a_directory_and_a_request_have_limits_of_their_own,
    limit(30).ini("user_ini.cache_ttl=0"),
    |s| {
        script(&s, "sub/loop.php", "while (true) {}");
        std::fs::write(s.root().join("sub/.user.ini"), "max_execution_time=1\n").unwrap();
        let text = s.get("/sub/loop.php").text();
        assert!(text.contains(EXCEEDED), "{text}");
        script(&s, "loop.php", "while (true) {}");
        let request = s
            .request("/loop.php")
            .param("PHP_VALUE", "max_execution_time=1");
        let text = s.send(&request).text();
        assert!(text.contains(EXCEEDED), "{text}");
    }
);

server!(ini_get_tells_the_limit, limit(7), |s| {
    s.php(
        "a.php",
        "<?php echo ini_get('max_execution_time'), ' ', ini_get('max_input_time');",
    );
    let expected = s.get("/a.php").text();
    assert!(expected.starts_with("7 "), "{expected}");
    assert_eq!(s.get("/a.php").text(), expected);
});
