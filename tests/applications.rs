//! Real applications from Debian's packages, behind a real nginx with kept-alive connections to fe-php.

mod browser;
mod dokuwiki;
mod installation;
mod mediawiki;

use std::thread;

use crate::frontends::http::Site;

/// How many visitors come at the same time.
const VISITORS: usize = 16;

#[test]
fn dokuwiki_serves_sixteen_editors() {
    let wiki = dokuwiki::install(VISITORS);
    visit(wiki.site(), VISITORS, |site, visitor| {
        dokuwiki::visit(site, visitor, &wiki.picture(visitor));
    });
    wiki.check_logs();
}

#[test]
fn mediawiki_serves_sixteen_editors() {
    let wiki = mediawiki::install(VISITORS);
    visit(wiki.site(), VISITORS, |site, visitor| {
        mediawiki::visit(site, visitor, &wiki.picture(visitor));
    });
    wiki.check_logs();
}

/// One visitor alone, then the others at the same time.
fn visit(site: &Site, visitors: usize, steps: impl Fn(&Site, usize) + Sync) {
    steps(site, 0);
    let steps = &steps;
    thread::scope(|scope| {
        for visitor in 1..=visitors {
            scope.spawn(move || steps(site, visitor));
        }
    });
}
