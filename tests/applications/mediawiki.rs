//! MediaWiki with SQLite: where it is installed, and what a visitor does.

use std::fs;
use std::path::{Path, PathBuf};

use super::browser::{Browser, Form, find_attribute};
use super::installation::{Directory, Installation, php_command, run};
use crate::frontends::http::{Site, Upload};
use crate::support::wait_until;

/// Where the package has its code.
pub(crate) const CODE: &str = "/usr/share/mediawiki";
const USER: &str = "Editor";
const PASSWORD: &str = "correct horse battery staple";

/// Installs it and starts the servers.
pub(crate) fn install(visitors: usize) -> Installation {
    let directory = directory();
    directory.draw_pictures(visitors);
    let settings = set_up(&directory);
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text + FOR_WRITERS).unwrap();
    let directives = format!(
        "root {CODE};
        location = / {{ return 302 /index.php; }}
        location /images/ {{ alias {images}/; }}
        location /resources/ {{ }}
        location /skins/ {{ }}
        location ~ ^/(index|api|load|rest|thumb)\\.php(/|$) {{
            fastcgi_split_path_info ^(.+?\\.php)(/.*)$;
            include /etc/nginx/fastcgi.conf;
            fastcgi_param PATH_INFO $fastcgi_path_info;
            fastcgi_param MW_CONFIG_FILE {settings};
            fastcgi_pass php;
        }}
        location ~ \\.php(/|$) {{ return 404; }}",
        images = directory.path().join("images").display(),
        settings = settings.display(),
    );
    directory.serve(Path::new(CODE), &directives)
}

/// A directory for [`set_up`].
pub(crate) fn directory() -> Directory {
    Directory::new("mediawiki", "/usr/share/mediawiki/maintenance/install.php")
}

/// Installs it from Debian's package: the code stays where it is, everything else is in `directory`. Returns its
/// LocalSettings.php, which scripts find by the variable `MW_CONFIG_FILE`.
pub(crate) fn set_up(directory: &Directory) -> PathBuf {
    let [settings, database, images, cache] =
        ["settings", "database", "images", "cache"].map(|name| directory.subdirectory(name));
    run(php_command()
        .arg(format!("{CODE}/maintenance/install.php"))
        .arg("--confpath")
        .arg(&settings)
        .arg("--dbpath")
        .arg(&database)
        .args([
            "--dbtype",
            "sqlite",
            "--dbname",
            "wiki",
            "--server",
            "http://localhost",
            "--scriptpath",
            "",
            "--lang",
            "en",
        ])
        .args(["--pass", PASSWORD, "Test Wiki", USER]));
    let settings = settings.join("LocalSettings.php");
    configure(&settings, &images, &cache);
    settings
}

/// Settings for many writers at the same time.
const FOR_WRITERS: &str = "
// A request that only reads would otherwise hold a transaction open, and fail if it writes after another one has.
$wgDBservers = [[
    'type' => 'sqlite', 'dbname' => $wgDBname, 'dbDirectory' => $wgSQLiteDataDir, 'load' => 1,
    'flags' => 0, 'trxMode' => 'IMMEDIATE', 'variables' => ['synchronous' => 'OFF'],
]];
$wgObjectCaches[CACHE_DB]['server']['variables']['synchronous'] = 'OFF';
$wgJobTypeConf['default']['server']['variables']['synchronous'] = 'OFF';
$wgLocalisationCacheConf['storeServer']['variables']['synchronous'] = 'OFF';
";

/// What the installer does not ask for.
fn configure(settings: &Path, images: &Path, cache: &Path) {
    let text = fs::read_to_string(settings).unwrap();
    let more = format!(
        "
// The port is known only when nginx has got one.
if (isset($_SERVER['HTTP_HOST'])) $wgServer = 'http://' . $_SERVER['HTTP_HOST'];
$wgEnableUploads = true;
$wgUploadDirectory = '{images}';
$wgUploadPath = '/images';
$wgUseImageMagick = false; // then it is done by PHP's own gd
$wgCacheDirectory = '{cache}';
$wgShowExceptionDetails = true;
$wgPasswordAttemptThrottle = []; // all visitors come from one address
",
        images = images.display(),
        cache = cache.display(),
    );
    fs::write(settings, text + &more).unwrap();
}

/// Reads, logs in, uploads a picture, writes a page and finds it.
pub(crate) fn visit(site: &Site, visitor: usize, picture: &[u8]) {
    let mut browser = Browser::new(site);
    read(&mut browser);
    log_in(&mut browser);
    let file = upload(&mut browser, visitor, picture);
    let title = edit(&mut browser, visitor, &file);
    search(&mut browser, visitor, &title);
    ask_apis(site, &title);
    log_out(&mut browser);
}

fn read(browser: &mut Browser<'_>) {
    let page = browser.get("/index.php?title=Main_Page").text();
    assert!(page.contains("MediaWiki has been installed"), "{page}");
    let style = browser.get(&find_attribute(&page, "link", "rel=\"stylesheet\"", "href"));
    assert!(
        style.header("Content-Type").starts_with("text/css") && style.body.len() > 1000,
        "{style:?}"
    );
    let script = browser.get(&find_attribute(&page, "script", "src=\"/load.php", "src"));
    assert!(
        script.header("Content-Type").starts_with("text/javascript") && script.body.len() > 1000,
        "{script:?}"
    );
}

fn log_in(browser: &mut Browser<'_>) {
    let page = browser.get("/index.php?title=Special:UserLogin&returnto=Main_Page");
    let form = Form::find(&page, "name=\"userlogin\"");
    let page = browser
        .submit(form, &[("wpName", USER), ("wpPassword", PASSWORD)])
        .text();
    assert!(
        page.contains("MediaWiki has been installed") && page.contains("id=\"pt-logout\""),
        "{page}"
    );
}

fn upload(browser: &mut Browser<'_>, visitor: usize, picture: &[u8]) -> String {
    let file = format!("Picture_{visitor}.png");
    let form = Form::find(
        &browser.get("/index.php?title=Special:Upload"),
        "id=\"mw-upload-form\"",
    );
    let fields = [
        ("wpDestFile", &*file),
        ("wpUploadDescription", "A picture"),
        ("wpUpload", "Upload file"),
    ];
    let page = browser
        .upload(
            form,
            &fields,
            Upload {
                field: "wpUploadFile",
                filename: "mine.png",
                content: picture,
            },
        )
        .text();
    assert!(page.contains("320 × 200 pixels"), "{page}");
    let original = browser.get(&find_attribute(&page, "a", "class=\"internal\"", "href"));
    assert!(
        original.body == picture,
        "{file} is not what was uploaded: {original:?}"
    );
    file
}

fn edit(browser: &mut Browser<'_>, visitor: usize, file: &str) -> String {
    let title = format!("Page of visitor {visitor}");
    let address = format!("/index.php?title={}", title.replace(' ', "_"));
    // Pages are slow to make: only the one who comes alone writes twice.
    let revisions = if visitor == 0 { 2 } else { 1 };
    for words in &["First words", "Better words"][..revisions] {
        let text = format!(
            "== Chapter ==\n'''{words}''' of needle{visitor}: ä [[File:{file}|100px]] — {}",
            "Much more. ".repeat(2000)
        );
        let form = Form::find(
            &browser.get(&format!("{address}&action=edit")),
            "id=\"editform\"",
        );
        assert_eq!(form.field("wpUnicodeCheck"), "ℳ𝒲♥𝓊𝓃𝒾𝒸ℴ𝒹ℯ");
        let page = browser
            .submit(
                form,
                &[
                    ("wpTextbox1", &*text),
                    ("wpSummary", "Words"),
                    ("wpSave", "Save"),
                ],
            )
            .text();
        assert!(
            page.contains(&format!("<b>{words}</b>"))
                && page.contains(&format!("needle{visitor}: ä")),
            "{page}"
        );
        let thumbnail = browser.get(&find_attribute(&page, "img", "width=\"100\"", "src"));
        assert!(thumbnail.body.starts_with(b"\x89PNG"), "{thumbnail:?}");
    }
    let history = browser.get(&format!("{address}&action=history")).text();
    assert_eq!(
        history.matches("<li data-mw-revid=").count(),
        revisions,
        "{history}"
    );
    title
}

/// The page is put into the index after its writer has got the answer.
fn search(browser: &mut Browser<'_>, visitor: usize, title: &str) {
    wait_until("the page is found", || {
        let results = browser.get(&format!(
            "/index.php?title=Special:Search&fulltext=1&search=needle{visitor}"
        ));
        results.text().contains(&format!("title=\"{title}\""))
    });
}

fn ask_apis(site: &Site, title: &str) {
    let answer = site
        .get("/api.php?action=query&meta=siteinfo&format=json")
        .json();
    assert!(
        answer["query"]["general"]["generator"]
            .as_str()
            .unwrap()
            .starts_with("MediaWiki 1."),
        "{answer}"
    );
    let answer = site
        .get(&format!("/rest.php/v1/page/{}", title.replace(' ', "_")))
        .json();
    assert!(
        answer["source"].as_str().unwrap().contains("needle"),
        "{answer}"
    );
}

/// The session has lasted until now.
fn log_out(browser: &mut Browser<'_>) {
    let form = Form::find(
        &browser.get("/index.php?title=Special:UserLogout"),
        "mw-htmlform",
    );
    let page = browser.submit(form, &[]).text();
    assert!(
        page.contains("You are now logged out") || page.contains("You have been logged out"),
        "{page}"
    );
    let page = browser.get("/index.php?title=Main_Page").text();
    assert!(page.contains("id=\"pt-login\""), "{page}");
}
