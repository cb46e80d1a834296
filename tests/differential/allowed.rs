//! Every difference to php-fpm that is meant, with its reason. A test fails when one of them is gone, too, unless it comes
//! and goes.

use crate::support::php;

/// A difference that is meant, as [`in_area`] finds it.
pub(crate) struct Allowed {
    /// Where: `area/case: place`; `*` stands for any text.
    pub(crate) place: &'static str,
    /// Why.
    pub(crate) reason: &'static str,
    /// Whether it is not there in each run.
    pub(crate) comes_and_goes: bool,
}

struct Entry {
    reason: &'static str,
    when: When,
    places: &'static [&'static str],
}

/// On which builds of PHP.
#[derive(Clone, Copy)]
enum When {
    Always,
    /// All, but not in each run.
    Sometimes,
    /// Threads share what processes have for themselves.
    Zts,
    /// A distribution configures each SAPI's build apart.
    Packaged,
    /// The same, of PHP 8.4 and later.
    Packaged84,
}

const ENTRIES: &[Entry] = &[
    Entry {
        reason: "php-fpm reads no body without a length (chunked, or unbuffered by nginx); fe-php reads it to its end",
        when: When::Always,
        places: &[
            "*bodies/no length*: body*",
            "*bodies/length \"\" of 7: body*",
        ],
    },
    Entry {
        reason: "php-fpm hides the Proxy header from $_SERVER only; it must reach no getenv() either (httpoxy)",
        when: When::Always,
        places: &["requests/proxy header: body.getenv.HTTP_PROXY"],
    },
    Entry {
        reason: "php-fpm shows bytes behind the end of the name that it has shortened",
        when: When::Always,
        places: &["*paths/proxy*: body.getenv.SCRIPT_FILENAME"],
    },
    Entry {
        reason: "php-fpm executes what is before the zero byte, which may be another file than the one checked",
        when: When::Always,
        places: &["*paths/script filename with zero byte: *"],
    },
    Entry {
        reason: "a name longer than any path is found missing before PHP is asked; 404 all the same",
        when: When::Always,
        places: &[
            "plain paths/long script filename: stderr",
            "plain paths/long script filename: body",
        ],
    },
    Entry {
        reason: "the message has the absolute name that was looked for",
        when: When::Always,
        places: &[
            "plain paths/script as a URL: stderr",
            "plain paths/script as data: stderr",
            "plain paths/proxy of another kind*: stderr",
        ],
    },
    Entry {
        reason: "the soft limit of open files is raised, for connections that cost no worker (not where it is high)",
        when: When::Sometimes,
        places: &["*environment/resource limits: body*"],
    },
    Entry {
        reason: "no call fails when a directory is opened, so php-fpm's message has the error of an earlier one",
        when: When::Sometimes,
        places: &["*paths/whole \"/script.php\": stderr"],
    },
    Entry {
        reason: "php-fpm looks for it in the directory that PHP's virtual working directory was left in",
        when: When::Zts,
        places: &["paths/relative script filename: *"],
    },
    Entry {
        reason: "php-fpm changes the process for good with these, for other sites too; fe-php refuses, with a log line",
        when: When::Always,
        places: &[
            "php_value/value extension: *",
            "php_value/admin value extension: *",
        ],
    },
    Entry {
        reason: "a value for one request is undone by ini_restore(), as under mod_php; php-fpm has made it the default",
        when: When::Always,
        places: &["php_value/value then ini_set: body"],
    },
    Entry {
        reason: "an administrator's value that the setting refuses locks it for the request, as under mod_php",
        when: When::Always,
        places: &["php_value/admin value empty: body"],
    },
    Entry {
        reason: "it names the program that runs",
        when: When::Always,
        places: &[
            "*environment/phpinfo module cgi-fcgi: body",
            "*environment/constants: body.Core.PHP_BINARY",
        ],
    },
    Entry {
        reason: "compiled into Debian's libphp, which has a php.ini of its own by default",
        when: When::Packaged,
        places: &["*environment/constants: body.Core.PHP_CONFIG_FILE_*"],
    },
    Entry {
        reason: "Debian compiles pcntl into libphp, not into php-fpm; its functions are off, the rest is there",
        when: When::Packaged,
        places: &[
            "*environment/extensions: body.pcntl",
            "*environment/constants: body.pcntl",
            "*environment/phpinfo modules: body",
        ],
    },
    Entry {
        reason: "pcntl has a class since PHP 8.4",
        when: When::Packaged84,
        places: &["*environment/classes: body.Pcntl\\QosClass"],
    },
    Entry {
        reason: "OPcache may not be restarted under running threads",
        when: When::Zts,
        places: &[
            "*environment/settings: body.opcache.force_restart_timeout",
            "*environment/OPcache: body.opcache.force_restart_timeout",
        ],
    },
];

impl Allowed {
    /// Whether it is about this place.
    pub(crate) fn covers(&self, place: &str) -> bool {
        matches(self.place, place)
    }
}

impl When {
    fn applies(self) -> bool {
        match self {
            Self::Always | Self::Sometimes => true,
            Self::Zts => php::is_zts(),
            Self::Packaged => php::is_packaged(),
            Self::Packaged84 => php::is_packaged() && php::version_number() >= 80400,
        }
    }
}

/// The differences that are meant in one comparison, on this build of PHP.
pub(crate) fn in_area(area: &str) -> Vec<Allowed> {
    let entries = ENTRIES.iter().filter(|entry| entry.when.applies());
    let allowed = entries.flat_map(|entry| {
        entry.places.iter().map(|place| Allowed {
            place,
            reason: entry.reason,
            comes_and_goes: matches!(entry.when, When::Sometimes),
        })
    });
    let in_area = |allowed: &Allowed| {
        let start = allowed.place.split('/').next();
        start.is_some_and(|start| matches(start, area))
    };
    allowed.filter(in_area).collect()
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
    assert!(!matches("errors/one: stderr", "errors/one: body"));
}
