//! Every difference to php-fpm that is meant, with its reason. A test fails when one of them is gone, too.

use crate::support::php;

/// A difference that is meant.
pub(crate) struct Allowed {
    /// Where: `area/case: place`; `*` stands for any text.
    pub(crate) place: &'static str,
    /// On which builds of PHP.
    when: When,
    /// Why.
    pub(crate) reason: &'static str,
}

#[derive(Clone, Copy)]
enum When {
    /// All.
    Always,
    /// Threads share what processes have for themselves.
    Zts,
    /// A distribution configures each SAPI's build apart.
    Packaged,
}

const ALLOWED: &[Allowed] = &[
    Allowed {
        place: "*bodies/no length*: body*",
        when: When::Always,
        reason: "php-fpm reads no body without a length; fe-php reads it to its end",
    },
    Allowed {
        place: "*bodies/length \"\" of 7: body*",
        when: When::Always,
        reason: "the same, as nginx sends it with fastcgi_request_buffering off",
    },
    Allowed {
        place: "requests/proxy header: body.getenv.HTTP_PROXY",
        when: When::Always,
        reason: "php-fpm hides the Proxy header from $_SERVER only; it must reach no getenv() either (httpoxy)",
    },
    Allowed {
        place: "*paths/proxy*: body.getenv.SCRIPT_FILENAME",
        when: When::Always,
        reason: "php-fpm shows bytes behind the end of the name that it has shortened",
    },
    Allowed {
        place: "*paths/script filename with zero byte: *",
        when: When::Always,
        reason: "php-fpm executes what is before the zero byte, which may be another file than the one checked",
    },
    Allowed {
        place: "*environment/functions: body.fpm_get_status",
        when: When::Always,
        reason: "not there yet: it belongs to the status page",
    },
    Allowed {
        place: "*environment/functions of the SAPI: body.fpm_get_status",
        when: When::Always,
        reason: "the same",
    },
    Allowed {
        place: "*environment/fpm status: body",
        when: When::Always,
        reason: "the same",
    },
    Allowed {
        place: "*environment/phpinfo module cgi-fcgi: body",
        when: When::Always,
        reason: "phpinfo() names the program",
    },
    Allowed {
        place: "*environment/constants: body.Core.PHP_BINARY",
        when: When::Always,
        reason: "it is the program that runs",
    },
    Allowed {
        place: "*environment/constants: body.Core.PHP_CONFIG_FILE_*",
        when: When::Packaged,
        reason: "compiled into Debian's libphp, which has a php.ini of its own by default",
    },
    Allowed {
        place: "*environment/extensions: body.pcntl",
        when: When::Packaged,
        reason: "Debian compiles pcntl into libphp, not into php-fpm",
    },
    Allowed {
        place: "*environment/constants: body.pcntl",
        when: When::Packaged,
        reason: "the same",
    },
    Allowed {
        place: "*environment/phpinfo modules: body",
        when: When::Packaged,
        reason: "the same",
    },
    Allowed {
        place: "*environment/functions: body.chroot",
        when: When::Packaged,
        reason: "Debian's libphp has it, php-fpm has not",
    },
    Allowed {
        place: "*environment/settings: body.opcache.force_restart_timeout",
        when: When::Zts,
        reason: "OPcache may not be restarted under running threads",
    },
    Allowed {
        place: "*environment/OPcache: body.opcache.force_restart_timeout",
        when: When::Zts,
        reason: "the same",
    },
    Allowed {
        place: "paths/relative script filename: *",
        when: When::Zts,
        reason: "php-fpm looks for it in the directory that PHP's virtual working directory was left in",
    },
];

impl Allowed {
    /// Whether it is about this place.
    pub(crate) fn covers(&self, place: &str) -> bool {
        matches(self.place, place)
    }

    fn applies(&self) -> bool {
        match self.when {
            When::Always => true,
            When::Zts => php::is_zts(),
            When::Packaged => php::is_packaged(),
        }
    }
}

/// The differences that are meant in one comparison, on this build of PHP.
pub(crate) fn in_area(area: &str) -> Vec<&'static Allowed> {
    let in_area = |entry: &&Allowed| {
        entry
            .place
            .split('/')
            .next()
            .is_some_and(|start| matches(start, area))
    };
    ALLOWED
        .iter()
        .filter(in_area)
        .filter(|entry| entry.applies())
        .collect()
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len())
                .any(|index| text.is_char_boundary(index) && matches(rest, &text[index..]))
        }),
    }
}

#[test]
fn a_place_matches_its_pattern_only() {
    assert!(matches("errors/*: stderr", "errors/one: stderr"));
    assert!(matches("*errors/a*c: *", "displayed errors/abc: body"));
    assert!(!matches("errors/one: stderr", "errors/one: stderr2"));
    assert!(!matches("errors/*: stderr", "errors/one: body"));
}
