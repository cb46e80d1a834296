//! What is measured, and what it is to reach.

use crate::contestants::{FOUR_WORKERS, Setup};
use crate::fairness::{self, Pages};
use crate::load::{Sample, bench, sample};
use crate::options::Options;
use crate::rounds::{Row, take_turns};
use crate::scripts::Scripts;
use crate::special;
use crate::support::php;
use crate::through_nginx::{self, Front, Target};

/// One case: some rows of the table.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) goals: &'static [Goal],
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// As many requests as can be.
    Load(Load),
    /// hello beside idle connections.
    Idle,
    /// Through nginx, by wrk.
    Nginx(Front),
    /// Slow requests among fast ones, at a fixed rate.
    WorkConserving,
    /// A mixed page, over so many connections.
    Pages(Pages),
    /// Slow requests among mixed pages, at a fixed rate.
    PageMix,
    /// Memory of many workers.
    Memory,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// The script, or MediaWiki's front page.
    script: Option<&'static str>,
    /// A body's file and type.
    body: Option<(&'static str, &'static str)>,
    tcp: bool,
    keep_alive: bool,
    /// fe-php, and other builds of it, with 64 connections too.
    wide: bool,
    /// Requests per second over one connection, instead of as many as possible.
    paced: Option<u32>,
    rounds: usize,
    seconds: f64,
}

/// What fe-php's figure is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) what: Figure,
    nts: f64,
    zts: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// CPU per request, by that of the first row.
    CpuRatio,
    /// Throughput, by that of the first row. This and the next are to be high, all others low.
    RateRatio,
    /// Processors that the server keeps busy.
    BusyRatio,
    P99Ratio,
    /// Divided by the ratio of CPU per request.
    P99ByCpuRatio,
    LongestByCpuRatio,
    PssRatio,
    P50Micros,
    P95Micros,
    PssPerConnection,
}

impl Goal {
    pub(crate) const fn new(what: Figure, bound: f64) -> Self {
        Self {
            what,
            nts: bound,
            zts: bound,
        }
    }

    /// The bound for the PHP under test.
    pub(crate) fn bound(&self) -> f64 {
        if php::is_zts() { self.zts } else { self.nts }
    }
}

const HELLO: Load = Load {
    script: Some("hello.php"),
    body: None,
    tcp: false,
    keep_alive: true,
    wide: false,
    paced: None,
    rounds: 7,
    seconds: 0.8,
};

/// All cases, in the order of the report.
pub(crate) fn all() -> Vec<Case> {
    let load = |name: &str, load, goals| Case {
        name: name.to_owned(),
        kind: Kind::Load(load),
        goals,
    };
    let other = |name: &str, kind, goals| Case {
        name: name.to_owned(),
        kind,
        goals,
    };
    let mut cases = vec![
        load(
            "hello, kept alive",
            Load {
                wide: true,
                ..HELLO
            },
            &const {
                [
                    Goal::new(Figure::CpuRatio, 0.55),
                    Goal::new(Figure::RateRatio, 1.3),
                ]
            },
        ),
        load(
            "hello, a connection per request",
            Load {
                keep_alive: false,
                wide: true,
                ..HELLO
            },
            &const {
                [
                    Goal::new(Figure::CpuRatio, 0.75),
                    Goal::new(Figure::RateRatio, 1.15),
                ]
            },
        ),
        load(
            "hello, 200 a second on one connection",
            Load {
                paced: Some(200),
                rounds: 5,
                seconds: 1.5,
                ..HELLO
            },
            &[],
        ),
        load(
            "50 KB page, kept alive, TCP",
            Load {
                script: Some("page.php"),
                tcp: true,
                wide: true,
                ..HELLO
            },
            &const {
                [
                    Goal::new(Figure::CpuRatio, 0.5),
                    Goal::new(Figure::P50Micros, 1000.0),
                ]
            },
        ),
        load(
            "50 KB page, kept alive, Unix",
            Load {
                script: Some("page.php"),
                wide: true,
                ..HELLO
            },
            &[],
        ),
        load(
            "50 KB page, a connection per request",
            Load {
                script: Some("page.php"),
                keep_alive: false,
                ..HELLO
            },
            &const { [Goal::new(Figure::CpuRatio, 0.7)] },
        ),
        load(
            "page that reads $_SERVER",
            Load {
                script: Some("server.php"),
                wide: true,
                ..HELLO
            },
            &[],
        ),
        load(
            "100 KB form POST of 200 fields",
            Load {
                script: Some("form.php"),
                body: Some(("form.body", "application/x-www-form-urlencoded")),
                ..HELLO
            },
            &const { [Goal::new(Figure::CpuRatio, 0.95)] },
        ),
        load(
            "100 KB JSON POST",
            Load {
                script: Some("json.php"),
                body: Some(("json.body", "application/json")),
                ..HELLO
            },
            &const { [Goal::new(Figure::CpuRatio, 0.7)] },
        ),
        load(
            "CPU-bound page",
            Load {
                script: Some("cpu.php"),
                rounds: 15,
                seconds: 1.2,
                ..HELLO
            },
            &const {
                [Goal {
                    what: Figure::CpuRatio,
                    nts: 1.03,
                    zts: 1.1,
                }]
            },
        ),
        load(
            "MediaWiki's front page",
            Load {
                script: None,
                rounds: 7,
                seconds: 3.0,
                ..HELLO
            },
            &const {
                [
                    Goal::new(Figure::CpuRatio, 1.0),
                    Goal::new(Figure::P99Ratio, 1.0),
                ]
            },
        ),
        other(
            "hello beside idle connections",
            Kind::Idle,
            &const {
                [
                    Goal::new(Figure::CpuRatio, 1.1),
                    Goal::new(Figure::PssPerConnection, 8192.0),
                ]
            },
        ),
        other(
            "hello through nginx",
            Kind::Nginx(Front::four_clients(Target::Script("hello.php"))),
            &[],
        ),
        other(
            "50 KB page through nginx",
            Kind::Nginx(Front::four_clients(Target::Script("page.php"))),
            &[],
        ),
        other(
            "100 a second, one in 20 sleeps 200 ms",
            Kind::WorkConserving,
            &const { [Goal::new(Figure::P95Micros, 5000.0)] },
        ),
        other(
            "32 workers after 1,000 MediaWiki pages",
            Kind::Memory,
            &const {
                [Goal {
                    what: Figure::PssRatio,
                    nts: 1.0,
                    zts: 0.6,
                }]
            },
        ),
    ];
    cases.extend(fairness::cases());
    cases
}

impl Kind {
    /// Whether it shows who waits for whom: then the table has *busy* and the longest request.
    pub(crate) fn is_fairness(&self) -> bool {
        match self {
            Self::Pages(_) | Self::PageMix => true,
            Self::Nginx(front) => front.is_fairness(),
            Self::Load(_) | Self::Idle | Self::WorkConserving | Self::Memory => false,
        }
    }
}

impl Case {
    pub(crate) fn measure(&self, scripts: &Scripts, options: &Options) -> Result<Vec<Row>, String> {
        match self.kind {
            Kind::Load(load) => Ok(load.measure(scripts, options)),
            Kind::Idle => special::idle(scripts, options),
            Kind::Nginx(front) => through_nginx::measure(front, scripts, options),
            Kind::WorkConserving => special::work_conserving(scripts, options),
            Kind::Pages(pages) => Ok(pages.measure(scripts, options)),
            Kind::PageMix => fairness::page_mix(scripts, options),
            Kind::Memory => special::memory(scripts, options),
        }
    }
}

/// Rounds until the servers are started anew.
const ROUNDS_PER_START: usize = 3;

impl Load {
    fn measure(&self, scripts: &Scripts, options: &Options) -> Vec<Row> {
        let setup = Setup {
            tcp: self.tcp,
            ..FOUR_WORKERS
        };
        let connections = if self.paced.is_some() { 1 } else { 4 };
        let (script, arguments) = self.arguments(scripts, options);
        let mut rows = Vec::new();
        let rounds = options.rounds(self.rounds);
        let mut done = 0;
        // Where a process's code and data happen to lie in memory makes it some percent faster or slower for all its life:
        // so everybody starts anew after a few rounds.
        while done < rounds {
            let servers = setup.all(scripts.root(), options);
            // Places of servers, and connections; the first row is php-fpm.
            let mut runs: Vec<(usize, u32)> = (0..servers.len())
                .map(|server| (server, connections))
                .collect();
            if self.wide {
                runs.extend((1..servers.len()).map(|server| (server, 64)));
            }
            if rows.is_empty() {
                rows.extend(servers.iter().map(|server| Row::new(&server.name)));
                if self.wide {
                    let wide = servers[1..].iter().map(|server| &server.name);
                    rows.extend(wide.map(|name| Row::new(&format!("{name}, 64 connections"))));
                }
            }
            let measure = |index: usize, more: &[&str]| -> Result<Sample, String> {
                let (server, connections) = runs[index];
                let mut arguments = arguments.clone();
                arguments.extend(["-c".to_owned(), connections.to_string()]);
                arguments.extend(more.iter().map(|&argument| argument.to_owned()));
                sample(&bench(&servers[server], &script, &arguments)?)
            };
            // A round that is not counted, and in each one requests until all workers have begun.
            for (index, row) in rows.iter_mut().enumerate() {
                if row.note.is_empty()
                    && let Err(error) = measure(index, &["--warm-up", "100"])
                {
                    eprintln!("  {}: {error}", row.name);
                    row.note = format!("failed: {error}");
                    row.samples.clear();
                }
            }
            let next = rounds.min(done + ROUNDS_PER_START);
            take_turns(&mut rows, done..next, |index| {
                measure(index, &["--warm-up", "16"])
            });
            done = next;
        }
        rows
    }

    /// The script, and what all runs have in common.
    fn arguments(&self, scripts: &Scripts, options: &Options) -> (String, Vec<String>) {
        let (script, mut arguments) = match self.script {
            Some(script) => (scripts.file(script), Vec::new()),
            None => scripts.wiki(),
        };
        let mut add = |more: &[&str]| arguments.extend(more.iter().map(|&more| more.to_owned()));
        add(&["--duration", &options.seconds(self.seconds).to_string()]);
        if let Some((file, content_type)) = self.body {
            add(&[
                "--body-file",
                &scripts.file(file),
                "--content-type",
                content_type,
            ]);
        }
        if !self.keep_alive {
            add(&["--no-keep-alive"]);
        }
        if let Some(rate) = self.paced {
            add(&["--rate", &rate.to_string()]);
        }
        (script, arguments)
    }
}
