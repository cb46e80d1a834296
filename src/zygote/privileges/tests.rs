//! Each case runs in a process of its own, this test program started again, whose /proc entries are then looked at.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;
use crate::config::ResourceLimits;

const WORK: &str = "FE_PHP_TEST_BECOME_WORKER";

/// Ways out of a chroot, as scripts might try them; the last one is no way out.
const ESCAPES: [&str; 5] = [
    "/absolute-link",
    "/relative-link",
    "/etc/passwd",
    "../../../../../../etc/passwd",
    "/inside-link",
];

/// What [`worker`] says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    error: Option<String>,
    thread: i32,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    root_again: bool,
    dumpable: bool,
    first_high: i32,
    /// Which of these could be read, as paths.
    readable: Vec<PathBuf>,
}

#[test]
#[ignore = "the process that the tests beside it start"]
fn worker() {
    let Ok(work) = env::var(WORK) else { return };
    let (identity, pool): (Identity, PoolConfig) = serde_json::from_str(&work).unwrap();
    if geteuid().is_root() {
        // Of whoever started the server.
        setgroups(&[Gid::from_raw(0), Gid::from_raw(4), Gid::from_raw(27)]).unwrap();
    }
    assert!(crate::descriptor::first_high() > 0);
    let error = become_worker(&identity, &pool).err();
    let report = Report {
        error: error.map(|error| error.to_string()),
        thread: rustix::thread::gettid().as_raw_nonzero().get(),
        directory: env::current_dir().unwrap(),
        environment: env::vars().collect(),
        root_again: setuid(Uid::from_raw(0)).is_ok(),
        dumpable: rustix::process::dumpable_behavior().unwrap() == DumpableBehavior::Dumpable,
        first_high: crate::descriptor::first_high(),
        readable: ESCAPES
            .iter()
            .map(PathBuf::from)
            .filter(|path| fs::read(path).is_ok())
            .collect(),
    };
    println!("\n@{}", serde_json::to_string(&report).unwrap());
    // Until the test has seen enough.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// A process that has become a worker of `pool`, or has failed to.
struct Worker {
    process: Child,
    /// Kept open: the test harness there has more to say.
    _output: BufReader<ChildStdout>,
    report: Report,
}

impl Worker {
    fn start(pool: &PoolConfig) -> Self {
        let identity = Identity::resolve(pool, true).unwrap();
        let work = serde_json::to_string(&(identity, pool)).unwrap();
        let mut process = Command::new(env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "zygote::privileges::tests::worker",
            ])
            .env(WORK, work)
            .env("INHERITED", "yes")
            .current_dir("/tmp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let report = output
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(serde_json::from_str(line.strip_prefix('@')?).unwrap()))
            .expect("the process reports");
        Self {
            process,
            _output: output,
            report,
        }
    }

    fn ok(pool: &PoolConfig) -> Self {
        let worker = Self::start(pool);
        assert_eq!(worker.report.error, None);
        worker
    }

    /// A file of its thread in /proc.
    fn proc(&self, name: &str) -> String {
        let (pid, thread) = (self.process.id(), self.report.thread);
        fs::read_to_string(format!("/proc/{pid}/task/{thread}/{name}")).unwrap()
    }

    /// A line of /proc/PID/status, its fields one space apart.
    fn status(&self, name: &str) -> String {
        let status = self.proc("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let mut all = self.report.environment.iter();
        all.find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn pool() -> PoolConfig {
    PoolConfig::new("www".to_owned(), Vec::new(), 1)
}

/// A pool of Debian's web user; none where these tests have no rights to change anything.
fn pool_of_www_data() -> Option<PoolConfig> {
    let mut pool = pool();
    pool.user = Some(Name::Name("www-data".to_owned()));
    is_root().then_some(pool)
}

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("not tested: this takes root's rights");
    }
    is_root
}

#[test]
fn a_worker_process_is_its_pools_user_for_good() {
    let Some(pool) = pool_of_www_data() else {
        return;
    };
    let user = Lookup::of_pool("www").user("www-data").unwrap();
    let worker = Worker::ok(&pool);
    let four = |id: u32| format!("{id} {id} {id} {id}");
    assert_eq!(worker.status("Uid"), four(user.uid));
    assert_eq!(worker.status("Gid"), four(user.gid));
    let mut groups = Lookup::of_pool("www")
        .groups_of("www-data", user.gid)
        .unwrap();
    groups.sort_unstable();
    let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
    assert_eq!(worker.status("Groups"), groups.join(" "));
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(worker.status(set), "0000000000000000", "{set}");
    }
    assert!(!worker.report.root_again);
    // sendmail's setgid bit is to work, as under php-fpm.
    assert_eq!(worker.status("NoNewPrivs"), "0");
    assert_eq!(worker.report.directory, Path::new("/tmp"));
}

#[test]
fn user_and_group_may_be_numbers_without_an_entry() {
    if !is_root() {
        return;
    }
    let mut pool = pool();
    pool.user = Some(Name::Id(54_321));
    pool.group = Some(Name::Id(54_322));
    let worker = Worker::ok(&pool);
    assert_eq!(worker.status("Uid"), "54321 54321 54321 54321");
    assert_eq!(worker.status("Gid"), "54322 54322 54322 54322");
    assert_eq!(worker.status("Groups"), "54322");
    assert_eq!(worker.variable("USER"), None);
}

#[test]
fn root_takes_a_word_of_the_administrator() {
    if !is_root() {
        return;
    }
    let refused = |pool: &PoolConfig| {
        let text = Identity::resolve(pool, false).unwrap_err().to_string();
        text == "[pool www] please specify user and group other than root"
    };
    let mut of_group = pool();
    of_group.user = Some(Name::Name("www-data".to_owned()));
    of_group.group = Some(Name::Name("root".to_owned()));
    let mut of_unknown = pool();
    // There is no group to go with it.
    of_unknown.user = Some(Name::Id(54_321));
    assert!(refused(&pool()) && refused(&of_group) && refused(&of_unknown));
    let worker = Worker::ok(&pool());
    assert_eq!(worker.status("Uid"), "0 0 0 0");
}

#[test]
fn chroot_and_chdir_within_it() {
    let Some(mut pool) = pool_of_www_data() else {
        return;
    };
    let jail = tempfile::tempdir().unwrap();
    fs::set_permissions(jail.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(jail.path().join("htdocs")).unwrap();
    pool.chroot = Some(jail.path().to_owned());
    let worker = Worker::ok(&pool);
    assert_eq!(worker.report.directory, Path::new("/"));
    let root = fs::read_link(format!("/proc/{}/root", worker.process.id())).unwrap();
    assert_eq!(root, jail.path());

    pool.chdir = Some("/htdocs".into());
    let worker = Worker::ok(&pool);
    assert_eq!(worker.report.directory, Path::new("/htdocs"));
    let directory = fs::read_link(format!("/proc/{}/cwd", worker.process.id())).unwrap();
    assert_eq!(directory, jail.path().join("htdocs"));
}

#[test]
fn no_path_and_no_link_leads_out_of_a_chroot() {
    let Some(mut pool) = pool_of_www_data() else {
        return;
    };
    let jail = tempfile::tempdir().unwrap();
    let path = |name: &str| jail.path().join(name);
    fs::set_permissions(jail.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path("inside"), "").unwrap();
    for (target, link) in [
        ("/etc/passwd", "absolute-link"),
        ("../../../../../../etc/passwd", "relative-link"),
        ("/inside", "inside-link"),
    ] {
        std::os::unix::fs::symlink(target, path(link)).unwrap();
    }
    pool.chroot = Some(jail.path().to_owned());
    let worker = Worker::ok(&pool);
    assert_eq!(worker.report.readable, [Path::new("/inside-link")]);
}

#[test]
fn what_fails_is_said_in_php_fpms_words_and_ends_the_process() {
    let Some(mut pool) = pool_of_www_data() else {
        return;
    };
    pool.chdir = Some("/no/such/directory".into());
    assert_eq!(
        Worker::start(&pool).report.error.as_deref(),
        Some("[pool www] failed to chdir(/no/such/directory): No such file or directory (2)")
    );
    pool.chroot = Some("/no/such/jail".into());
    assert_eq!(
        Worker::start(&pool).report.error.as_deref(),
        Some("[pool www] failed to chroot(/no/such/jail): No such file or directory (2)")
    );
}

#[test]
fn limits_priority_and_dumpable() {
    let Some(mut pool) = pool_of_www_data() else {
        return;
    };
    pool.rlimits = ResourceLimits {
        files: Some(1000),
        core: Some(4096),
    };
    pool.priority = Some(7);
    let worker = Worker::ok(&pool);
    let limits = worker.proc("limits");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(limit("Max open files"), "1000 1000");
    assert_eq!(limit("Max core file size"), "4096 4096");
    // Descriptors of ours go where there is room for them.
    assert_eq!(worker.report.first_high, 500);
    // The fields after the name, which ends with a parenthesis: nice is the 19th of all.
    let stat = worker.proc("stat");
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_eq!(fields[16], "7");
    assert!(!worker.report.dumpable);

    pool.dumpable = true;
    pool.rlimits.core = Some(u64::MAX);
    pool.rlimits.files = None;
    let worker = Worker::ok(&pool);
    assert!(worker.report.dumpable);
    assert!(
        worker
            .proc("limits")
            .contains("Max core file size        unlimited            unlimited")
    );
}

#[test]
fn the_environment_is_what_the_pool_says() {
    let Some(mut pool) = pool_of_www_data() else {
        return;
    };
    let user = Lookup::of_pool("www").user("www-data").unwrap();
    let path = env::var("PATH").unwrap();
    pool.env = [
        ("PLAIN", "a=b"),
        ("COPIED", "$PATH"),
        ("ABSENT", "$NO_SUCH_VARIABLE"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let worker = Worker::ok(&pool);
    assert_eq!(worker.variable("PLAIN"), Some("a=b"));
    assert_eq!(worker.variable("COPIED"), Some(path.as_str()));
    assert_eq!(worker.variable("ABSENT"), Some(""));
    assert_eq!(worker.variable("USER"), Some("www-data"));
    assert_eq!(worker.variable("HOME"), user.home.to_str());
    assert_eq!(worker.report.environment.len(), 5);

    pool.clear_env = false;
    pool.env = vec![("HOME".to_owned(), "/elsewhere".to_owned())];
    let worker = Worker::ok(&pool);
    assert_eq!(worker.variable("INHERITED"), Some("yes"));
    assert_eq!(worker.variable("HOME"), Some("/elsewhere"));
    assert_eq!(worker.variable("USER"), Some("www-data"));
}
