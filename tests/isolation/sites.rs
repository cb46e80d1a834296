//! Two sites on the same workers, in turns and at the same time.

use std::path::PathBuf;

use crate::support::client::Request;
use crate::support::php;
use crate::support::server::Server;

/// Sets everything to the site's own, waits a moment, and lists whatever is not the site's own before and after.
const SITE: &str = r"<?php
$site = $_SERVER['SITE'];
$wrong = [];
$check = function (string $what, mixed $found, mixed $expected) use (&$wrong) {
    if ($found !== $expected) {
        $wrong[] = $what . ': ' . var_export($found, true) . ' instead of ' . var_export($expected, true);
    }
};
$process_wide = !PHP_ZTS || isset($_GET['alone']); // of PHP itself: threads share locale, environment and umask

$check('working directory', getcwd(), __DIR__);
$check('user ini', ini_get('user_agent'), $site);
$check('precision', ini_get('precision'), $site === 'a' ? '5' : '6');
$check('time zone', date_default_timezone_get(), $site === 'a' ? 'Asia/Tokyo' : 'Europe/Berlin');
$check('constant', defined('SITE'), false);
$check('global', isset($GLOBALS['mine']), false);
$check('include path', get_include_path(), ini_get('include_path'));
$check('error handler', set_error_handler(fn () => false), null);
$check('wrapper', in_array('site', stream_get_wrappers()), false);
$check('headers', preg_grep('/^X-Site/', headers_list()), []);
$check('query', $_GET['n'], $_SERVER['HTTP_X_NUMBER']);
$check('form', $_POST['n'] ?? null, $_SERVER['REQUEST_METHOD'] === 'POST' ? $_GET['n'] : null);
$check('cookie', $_COOKIE['PHPSESSID'], $site . ($_GET['n'] % 5));
if ($process_wide) {
    $check('environment', getenv('SITE'), $site); // a param of the request
    $check('own environment', getenv('OF_SITE'), false);
    $check('locale', setlocale(LC_CTYPE, 0), 'C.UTF-8');
    $check('umask', umask(), 022);
}

define('SITE', $site);
$mine = $_GET['n'];
function mine() { return SITE; }
class Mine { const SITE = SITE; }
set_include_path(__DIR__);
ini_set('user_agent', $site . 'x');
stream_wrapper_register('site', 'Mine');
header('X-Site: ' . $site . $_GET['n']);
http_response_code($site === 'a' ? 201 : 202);
if ($process_wide) {
    putenv('OF_SITE=' . $site);
    setlocale(LC_CTYPE, 'C');
    umask($site === 'a' ? 077 : 027);
}
chdir($site === 'a' ? 'sub' : '..');
ob_start(fn ($text) => $text . '.');
session_start();
$check('session', $_SESSION['site'] ?? $site, $site);
$_SESSION['site'] = $site;
usleep(($_GET['n'] * 7919) % 3000);
session_write_close();

$check('working directory later', getcwd(), $site === 'a' ? __DIR__ . '/sub' : dirname(__DIR__));
$check('relative file', file_exists('of-a'), $site === 'a');
$check('constant later', SITE, $site);
$check('function later', mine(), $site);
$check('global later', $GLOBALS['mine'], $_GET['n']);
$check('ini later', ini_get('user_agent'), $site . 'x');
$check('include path later', include 'inc.php', $site);
if ($process_wide) {
    $check('environment later', getenv('OF_SITE'), $site);
    $check('umask later', umask(), $site === 'a' ? 077 : 027);
}
echo $site, $_GET['n'], ' ', implode(PHP_EOL, $wrong);
";

fn make_sites(server: &Server) {
    for (site, zone, precision) in [("a", "Asia/Tokyo", 5), ("b", "Europe/Berlin", 6)] {
        let sessions = server.directory().join(format!("sessions-{site}"));
        std::fs::create_dir(&sessions).unwrap();
        server.php(&format!("{site}/index.php"), SITE);
        server.php(
            &format!("{site}/inc.php"),
            &format!("<?php return '{site}';"),
        );
        server.php(&format!("{site}/sub/of-a"), "");
        let settings = format!(
            "user_agent={site}\nprecision={precision}\ndate.timezone={zone}\nsession.save_path={}\n",
            sessions.display()
        );
        std::fs::write(server.root().join(site).join(".user.ini"), settings).unwrap();
    }
}

/// Request `number` of a site, and what must come back.
fn request(server: &Server, site: &str, number: usize, alone: bool) -> (Request, String) {
    let root: PathBuf = server.root().join(site);
    let uri = format!("/index.php?n={number}{}", if alone { "&alone" } else { "" });
    let mut request = Request::get(&root, &uri)
        .param("SITE", site)
        .header("X-Number", number.to_string())
        .header("Cookie", format!("PHPSESSID={site}{}", number % 5))
        .keep();
    if number.is_multiple_of(3) {
        request = request.form(format!("n={number}"));
    }
    (request, format!("{site}{number} ."))
}

fn alternate(server: &Server, clients: usize, requests: usize) {
    let alone = clients == 1;
    std::thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || {
                let mut connection = server.connect();
                for round in 0..requests {
                    let number = client * 1000 + round;
                    let site = if (client + round) % 2 == 0 { "a" } else { "b" };
                    let (request, expected) = request(server, site, number, alone);
                    let response = connection.exchange(&request);
                    assert_eq!(response.text(), expected, "{}", response.stderr_text());
                    assert_eq!(response.status, if site == "a" { 201 } else { 202 });
                    assert_eq!(
                        response.header("X-Site"),
                        Some(format!("{site}{number}").as_str())
                    );
                }
            });
        }
    });
}

server!(two_sites_alternate_on_one_worker, |s| {
    make_sites(&s);
    alternate(&s, 1, 200);
});

server!(
    two_sites_alternate_on_one_worker_without_opcache,
    Server::builder().ini("opcache.enable=0"),
    |s| {
        make_sites(&s);
        alternate(&s, 1, 100);
    }
);

server!(
    two_sites_share_four_workers_at_the_same_time,
    Server::builder().workers(4),
    |s| {
        make_sites(&s);
        alternate(&s, 12, 100);
    }
);

server!(
    two_sites_share_one_multiplexed_connection,
    Server::builder().workers(4),
    |s| {
        make_sites(&s);
        let mut connection = s.connect();
        let mut expected = std::collections::HashMap::new();
        for round in 0..20 {
            for id in 1..=10_u16 {
                let site = if id % 2 == 0 { "a" } else { "b" };
                let (request, text) =
                    request(&s, site, round * 100 + usize::from(id), !php::is_zts());
                connection.send(&request.with_id(id).encode());
                expected.insert(id, text);
            }
            for _ in 0..10 {
                let (id, response) = connection.next_response();
                assert_eq!(Some(response.text()), expected.remove(&id));
            }
        }
    }
);

server!(sites_keep_their_own_user_ini, |s| {
    s.php(
        "a/show.php",
        "<?php echo ini_get('precision'), ini_get('auto_prepend_file'), ini_get('open_basedir');",
    );
    s.php(
        "b/show.php",
        "<?php echo ini_get('precision'), ini_get('auto_prepend_file'), ini_get('open_basedir');",
    );
    s.php("a/prepended.php", "<?php echo 'prepended ';");
    std::fs::write(
        s.root().join("a/.user.ini"),
        "precision=5\nauto_prepend_file=prepended.php\nopen_basedir=/\n",
    )
    .unwrap();
    for _ in 0..20 {
        let show = |site: &str| {
            s.send(&Request::get(&s.root().join(site), "/show.php"))
                .text()
        };
        assert_eq!(show("a"), "prepended 5prepended.php/");
        assert_eq!(show("b"), "14");
    }
});
