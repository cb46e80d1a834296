//! DokuWiki: where it is installed, and what a visitor does.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::browser::{Browser, Form, find_attribute};
use super::installation::{Directory, Installation, run};
use crate::frontends::http::{Site, Upload};
use crate::support::wait_until;

const USER: &str = "editor";
const PASSWORD: &str = "editor-password";
const PASSWORD_MD5: &str = "5ac5d8c94bfc1683e60447e13aa3cb76";

/// Installs a copy of Debian's package in a directory of the test's, with one user who may do all.
pub(crate) fn install(visitors: usize) -> Installation {
    let directory = Directory::new("dokuwiki", "/usr/share/dokuwiki/doku.php");
    directory.draw_pictures(visitors);
    let root = directory.path().join("dokuwiki");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-dokuwiki.sh");
    run(Command::new(script).arg(&root));
    let settings = format!(
        "<?php
$conf['title'] = 'Test Wiki';
$conf['license'] = '';
$conf['savedir'] = '{}/data';
$conf['updatecheck'] = 0;
$conf['useacl'] = 1;
$conf['superuser'] = '@admin';
",
        root.display()
    );
    fs::write(root.join("conf/local.php"), settings).unwrap();
    fs::write(root.join("conf/acl.auth.php"), "* @ALL 1\n* @user 16\n").unwrap();
    let users = format!("{USER}:{PASSWORD_MD5}:The Editor:editor@example.org:admin,user\n");
    fs::write(root.join("conf/users.auth.php"), users).unwrap();
    // DokuWiki makes a cache file of the same second as its settings again and again, in place, while others read it.
    let an_hour_ago = ["-exec", "touch", "-d", "1 hour ago", "{}", "+"];
    run(Command::new("find").arg(&root).args(an_hour_ago));
    let directives = format!(
        "root {root};
        location = / {{ return 302 /doku.php; }}
        location ~ ^/(bin|conf|data|inc|vendor)/ {{ return 404; }}
        location ~ \\.php(/|$) {{
            fastcgi_split_path_info ^(.+?\\.php)(/.*)$;
            include /etc/nginx/fastcgi.conf;
            fastcgi_param PATH_INFO $fastcgi_path_info;
            fastcgi_pass php;
        }}",
        root = root.display(),
    );
    directory.serve(&root, &directives)
}

/// Reads, logs in, uploads a picture, writes a page and finds it.
pub(crate) fn visit(site: &Site, visitor: usize, picture: &[u8]) {
    let mut browser = Browser::new(site);
    read(&mut browser);
    log_in(&mut browser);
    upload(&mut browser, visitor, picture);
    edit(&mut browser, visitor);
    search(&mut browser, visitor);
    log_out(&mut browser);
}

fn read(browser: &mut Browser<'_>) {
    let page = browser.get("/doku.php?id=start").text();
    assert!(
        page.contains("It works") && page.contains("Test Wiki"),
        "{page}"
    );
    let style = browser.get(&find_attribute(&page, "link", "rel=\"stylesheet\"", "href"));
    assert!(
        style.header("Content-Type").starts_with("text/css") && style.body.len() > 10_000,
        "{style:?}"
    );
    let script = browser.get(&find_attribute(&page, "script", "/lib/exe/js.php", "src"));
    assert!(
        script.header("Content-Type").contains("javascript") && script.body.len() > 10_000,
        "{script:?}"
    );
}

fn log_in(browser: &mut Browser<'_>) {
    let form = Form::find(
        &browser.get("/doku.php?id=start&do=login"),
        "id=\"dw__login\"",
    );
    let page = browser.submit(form, &[("u", USER), ("p", PASSWORD)]).text();
    assert!(
        page.contains("It works") && page.contains("The Editor"),
        "{page}"
    );
}

fn upload(browser: &mut Browser<'_>, visitor: usize, picture: &[u8]) {
    let file = format!("picture{visitor}.png");
    let form = Form::find(
        &browser.get("/doku.php?id=start&do=media&ns=&tab_files=upload"),
        "id=\"dw__upload\"",
    );
    let upload = Upload {
        field: "upload",
        filename: "mine.png",
        content: picture,
    };
    let page = browser.upload(form, &[("mediaid", &*file)], upload).text();
    assert!(page.contains(&file), "{page}");
    let original = browser.get(&format!("/lib/exe/fetch.php?media={file}"));
    assert!(
        original.body == picture,
        "{file} is not what was uploaded: {original:?}"
    );
}

fn edit(browser: &mut Browser<'_>, visitor: usize) {
    let address = format!("/doku.php?id=visitors:page{visitor}");
    for words in ["First words", "Better words"] {
        let more = "Much more. ".repeat(2000);
        let text = format!(
            "===== Chapter =====\n**{words}** of needle{visitor}: ä {{{{:picture{visitor}.png?100}}}} {more}"
        );
        let form = Form::find(
            &browser.get(&format!("{address}&do=edit")),
            "id=\"dw__editform\"",
        );
        let page = browser
            .submit(
                form,
                &[
                    ("wikitext", &*text),
                    ("summary", "Words"),
                    ("do[save]", "1"),
                ],
            )
            .text();
        assert!(
            page.contains(&format!("<strong>{words}</strong>"))
                && page.contains(&format!("needle{visitor}: ä")),
            "{page}"
        );
        let thumbnail = browser.get(&find_attribute(&page, "img", "width=\"100\"", "src"));
        assert!(thumbnail.body.starts_with(b"\x89PNG"), "{thumbnail:?}");
    }
    let history = browser.get(&format!("{address}&do=revisions")).text();
    assert!(history.matches("name=\"rev2[]\"").count() >= 2, "{history}");
}

/// Every page has a small picture in it that is a script, which puts the page into the index.
fn search(browser: &mut Browser<'_>, visitor: usize) {
    wait_until("the page is found", || {
        browser.get(&format!(
            "/lib/exe/taskrunner.php?id=visitors:page{visitor}"
        ));
        let results = browser.get(&format!("/doku.php?do=search&id=start&q=needle{visitor}"));
        results
            .text()
            .contains(&format!("data-wiki-id=\"visitors:page{visitor}\""))
    });
}

/// The session has lasted until now.
fn log_out(browser: &mut Browser<'_>) {
    let page = browser.get("/doku.php?id=start");
    assert!(page.text().contains("The Editor"), "{page:?}");
    let page = browser
        .get(&find_attribute(&page.text(), "a", "do=logout", "href"))
        .text();
    assert!(
        page.contains("You are currently not logged in") && !page.contains("The Editor"),
        "{page}"
    );
}
