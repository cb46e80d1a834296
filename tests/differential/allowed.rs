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
    /// A distribution configures each SAPI's build apart.
    Packaged,
}

const ALLOWED: &[Allowed] = &[];

impl Allowed {
    /// Whether it is about this place.
    pub(crate) fn covers(&self, place: &str) -> bool {
        matches(self.place, place)
    }

    fn applies(&self) -> bool {
        match self.when {
            When::Packaged => php::is_packaged(),
        }
    }
}

/// The differences that are meant in one comparison, on this build of PHP.
pub(crate) fn in_area(area: &str) -> Vec<&'static Allowed> {
    let in_area = |entry: &&Allowed| entry.place.split('/').next().is_some_and(|start| matches(start, area));
    ALLOWED.iter().filter(in_area).filter(|entry| entry.applies()).collect()
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).any(|index| text.is_char_boundary(index) && matches(rest, &text[index..]))
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
