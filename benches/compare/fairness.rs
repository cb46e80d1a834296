//! Cases that show whether a request waits while a worker is idle, and whether requests wait in turn.
//!
//! php-fpm gets as many clients as fe-php, each with a connection for each request: its workers then take requests
//! from one queue, the listen backlog, in the order in which they came. All servers start anew for each round, since
//! both the place of code in memory and the worker that gets a connection differ from one start to the next.

use crate::cases::{Case, Figure, Goal, Kind};
use crate::contestants::FOUR_WORKERS;
use crate::load::{OVERTAKEN, bench, errors, figures, sample};
use crate::options::Options;
use crate::rounds::{Row, take_turns};
use crate::scripts::Scripts;
use crate::special::owned;
use crate::through_nginx::{Front, Target};

/// A mixed page with a number of connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages {
    page: Page,
    connections: u32,
}

/// A mixed page.
#[derive(Debug, Clone, Copy)]
struct Page {
    /// How much CPU it takes, about.
    milliseconds: &'static str,
    script: &'static str,
    /// How long a round lasts with `--quick`; otherwise twice as long. The longest request depends on how many there
    /// are, so this is the same for all servers.
    seconds: f64,
    /// Requests until each worker has run the script a few times.
    warm_up: u32,
}

const PAGES: [Page; 4] = [
    Page {
        milliseconds: "0.25",
        script: "mixed-0.25.php",
        seconds: 1.0,
        warm_up: 100,
    },
    Page {
        milliseconds: "1",
        script: "mixed-1.php",
        seconds: 1.5,
        warm_up: 100,
    },
    Page {
        milliseconds: "2.4",
        script: "mixed-2.4.php",
        seconds: 2.0,
        warm_up: 60,
    },
    Page {
        milliseconds: "10",
        script: "mixed-10.php",
        seconds: 3.0,
        warm_up: 40,
    },
];

const CONNECTIONS: [u32; 5] = [2, 4, 8, 16, 64];
/// With so many connections or more than that, fe-php is measured with a connection for each request too.
const MORE_THAN_WORKERS: u32 = 8;

const PAGE_GOALS: [Goal; 3] = [
    Goal::new(Figure::BusyRatio, 0.97),
    Goal::new(Figure::P99ByCpuRatio, 1.1),
    Goal::new(Figure::LongestByCpuRatio, 1.5),
];
const NGINX_GOALS: [Goal; 3] = [
    Goal::new(Figure::BusyRatio, 0.97),
    Goal::new(Figure::P99ByCpuRatio, 1.0),
    Goal::new(Figure::LongestByCpuRatio, 1.3),
];
const MIX_GOALS: [Goal; 1] = [Goal::new(Figure::P95Micros, 3000.0)];

/// The cases, in the order of the report.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for page in PAGES {
        for connections in CONNECTIONS {
            let name = format!(
                "mixed page of {} ms, {connections} connections",
                page.milliseconds
            );
            cases.push(Case {
                name,
                kind: Kind::Pages(Pages { page, connections }),
                goals: &PAGE_GOALS,
            });
        }
    }
    cases.push(Case {
        name: "mixed page of 1 ms, 100 a second, one in 20 sleeps 200 ms".to_owned(),
        kind: Kind::PageMix,
        goals: &MIX_GOALS,
    });
    for (name, target) in [
        ("Symfony page through nginx, 8 clients", Target::Symfony),
        (
            "MediaWiki's front page through nginx, 8 clients",
            Target::MediaWiki,
        ),
    ] {
        cases.push(Case {
            name: name.to_owned(),
            kind: Kind::Nginx(Front::eight_clients(target)),
            goals: &NGINX_GOALS,
        });
    }
    cases
}

impl Pages {
    pub(crate) fn measure(&self, scripts: &Scripts, options: &Options) -> Vec<Row> {
        let script = scripts.file(self.page.script);
        let seconds = self.page.seconds * if options.quick { 1.0 } else { 2.0 };
        let warm_up = self.page.warm_up.max(2 * self.connections);
        let common = [
            "-d".to_owned(),
            seconds.to_string(),
            "-c".to_owned(),
            self.connections.to_string(),
            "--warm-up".to_owned(),
            warm_up.to_string(),
            "--overtaken".to_owned(),
            OVERTAKEN.to_owned(),
        ];
        let mut rows = Vec::new();
        for round in 0..options.rounds_of(3, 7) {
            let servers = FOUR_WORKERS.all(scripts.root(), options);
            // Places of servers, and whether connections are kept alive; the first row is php-fpm.
            let mut runs = vec![(0, false)];
            for server in 1..servers.len() {
                runs.push((server, true));
                if self.connections >= MORE_THAN_WORKERS {
                    runs.push((server, false));
                }
            }
            if rows.is_empty() {
                rows.extend(
                    runs.iter()
                        .map(|&(server, kept)| row(&servers[server].name, server, kept)),
                );
            }
            take_turns(&mut rows, round..round + 1, |index| {
                let (server, kept) = runs[index];
                let mut arguments = common.to_vec();
                if !kept {
                    arguments.push("--no-keep-alive".to_owned());
                }
                sample(&bench(&servers[server], &script, &arguments)?)
            });
        }
        rows
    }
}

/// The latencies are those of the requests that do not sleep.
pub(crate) fn page_mix(scripts: &Scripts, options: &Options) -> Result<Vec<Row>, String> {
    let servers = FOUR_WORKERS.all(scripts.root(), options);
    let script = scripts.file("mixed-1.php");
    let mix = format!("20:{}", scripts.file("sleep.php"));
    let seconds = options.seconds(9.0).to_string();
    let mut rows: Vec<Row> = servers
        .iter()
        .enumerate()
        .map(|(place, server)| row(&server.name, place, place > 0))
        .collect();
    take_turns(&mut rows, 0..options.rounds_of(3, 3), |index| {
        let mut arguments = owned(&["--rate", "100", "-c", "64", "--mix", &mix]);
        let more = ["-d", &seconds, "--warm-up", "128", "--overtaken", OVERTAKEN];
        arguments.extend(owned(&more));
        if index == 0 {
            arguments.push("--no-keep-alive".to_owned());
        }
        let report = bench(&servers[index], &script, &arguments)?;
        match errors(&report) {
            Some(text) => Err(text),
            None => Ok(figures(&report, &report["scripts"][0])),
        }
    });
    Ok(rows)
}

fn row(server: &str, place: usize, kept_alive: bool) -> Row {
    let how = if kept_alive {
        "kept alive"
    } else {
        "a connection each"
    };
    Row {
        judged: place == 1,
        ..Row::new(&format!("{server}, {how}"))
    }
}
