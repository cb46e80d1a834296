//! Cases with nginx before the servers, and wrk as the load generator.

use std::process::Command;
use std::time::Duration;

use crate::applications::mediawiki;
use crate::contestants::{Contestant, FOUR_WORKERS};
use crate::frontends::frontend::{Frontend, find_program};
use crate::frontends::nginx::start_tuned;
use crate::load::Sample;
use crate::options::Options;
use crate::processes::Snapshot;
use crate::rounds::{Row, take_turns};
use crate::scripts::Scripts;

/// What is asked for, and how nginx asks the servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Front {
    target: Target,
    clients: u32,
    /// How many connections to a server nginx keeps.
    keepalive: u32,
    /// php-fpm's connections are kept too; otherwise it gets one for each request (`fastcgi_keep_conn off`).
    php_fpm_kept_alive: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Script(&'static str),
    /// benches/compare/symfony/.
    Symfony,
    /// Its front page.
    MediaWiki,
}

impl Front {
    /// As many connections as php-fpm has workers: more would wait for the others' end.
    pub(crate) const fn four_clients(target: Target) -> Self {
        Self {
            target,
            clients: 4,
            keepalive: 4,
            php_fpm_kept_alive: true,
        }
    }

    /// More clients than workers.
    pub(crate) const fn eight_clients(target: Target) -> Self {
        Self {
            target,
            clients: 8,
            keepalive: 16,
            php_fpm_kept_alive: false,
        }
    }

    pub(crate) fn is_fairness(&self) -> bool {
        !self.php_fpm_kept_alive
    }

    /// nginx before a server. One worker process: two would keep the processors from each other.
    fn start(&self, server: &Contestant, scripts: &Scripts) -> Frontend {
        let mut directives = match self.target {
            Target::Script(_) | Target::Symfony => format!(
                "root {};
                location ~ \\.php(/|$) {{
                    fastcgi_split_path_info ^(.+?\\.php)(/.*)$;
                    include /etc/nginx/fastcgi.conf;
                    fastcgi_pass php;
                }}",
                scripts.root().display()
            ),
            Target::MediaWiki => format!(
                "root {};
                location = /index.php {{
                    include /etc/nginx/fastcgi.conf;
                    fastcgi_param MW_CONFIG_FILE {};
                    fastcgi_pass php;
                }}",
                mediawiki::CODE,
                scripts.wiki_settings().display()
            ),
        };
        if server.is_php_fpm() && !self.php_fpm_kept_alive {
            directives += "\nfastcgi_keep_conn off;";
        }
        start_tuned(&server.address, &directives, 1, self.keepalive)
    }

    fn path(&self) -> String {
        match self.target {
            Target::Script(script) => format!("/{script}"),
            Target::Symfony => "/symfony/index.php/shelf/3".to_owned(),
            Target::MediaWiki => "/index.php?title=Main_Page".to_owned(),
        }
    }

    fn name_of(&self, server: &Contestant) -> String {
        match (self.php_fpm_kept_alive, server.is_php_fpm()) {
            (true, _) => server.name.clone(),
            (false, true) => format!("{}, a connection each", server.name),
            (false, false) => format!("{}, kept alive", server.name),
        }
    }
}

/// wrk over HTTP.
pub(crate) fn measure(
    front: Front,
    scripts: &Scripts,
    options: &Options,
) -> Result<Vec<Row>, String> {
    const SECONDS: f64 = 3.0;

    let wrk = find_program("wrk").ok_or(
        "wrk is missing: install Debian's package wrk, or run `make bench`, which does that",
    )?;
    let path = front.path();
    let (rounds, per_start, seconds) = if front.is_fairness() {
        let seconds = if options.quick {
            SECONDS
        } else {
            2.0 * SECONDS
        };
        (options.rounds_of(3, 9), 1, seconds)
    } else {
        (options.rounds(5), usize::MAX, options.seconds(SECONDS))
    };
    let seconds = seconds.ceil().to_string();
    let mut rows = Vec::new();
    let mut done = 0;
    while done < rounds {
        let servers = FOUR_WORKERS.all(scripts.root(), options);
        let fronts: Vec<Frontend> = servers
            .iter()
            .map(|server| front.start(server, scripts))
            .collect();
        if rows.is_empty() {
            rows.extend(servers.iter().enumerate().map(|(place, server)| Row {
                judged: place == 1,
                ..Row::new(&front.name_of(server))
            }));
        }
        let measure = |index: usize, seconds: &str| {
            let url = format!("{}{path}", fronts[index].site().base_url());
            let before = Snapshot::take(servers[index].pid)?;
            let mut command = Command::new(&wrk);
            command
                .args(["-t1", "--latency", "--timeout", "10s", "-d", seconds])
                .args(["-c", &front.clients.to_string(), &url]);
            let output = command
                .output()
                .map_err(|error| format!("{command:?}: {error}"))?;
            let cpu = Snapshot::take(servers[index].pid)?.cpu_since(&before).total;
            wrk_sample(&String::from_utf8_lossy(&output.stdout), cpu)
        };
        for (index, front) in fronts.iter().enumerate() {
            // An application's first request may write what the others only read.
            front.site().get(&path);
            measure(index, "2")?;
        }
        let next = rounds.min(done.saturating_add(per_start));
        take_turns(&mut rows, done..next, |index| measure(index, &seconds));
        done = next;
    }
    Ok(rows)
}

/// The figures in wrk's report.
fn wrk_sample(text: &str, cpu: Duration) -> Result<Sample, String> {
    let field = |start: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(start))
            .map(str::trim)
    };
    for trouble in ["Non-2xx", "Socket errors"] {
        if let Some(rest) = field(trouble) {
            return Err(format!("wrk: {trouble}{rest}"));
        }
    }
    let unreadable = || format!("wrk said\n{text}");
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(count, _)| count.parse::<f64>().ok())
        .ok_or_else(unreadable)?;
    // The first line that begins so has the average, the standard deviation and the longest.
    let longest = field("Latency").and_then(|line| line.split_whitespace().nth(2));
    Ok(Sample {
        cpu: Some(cpu.as_secs_f64() * 1e6 / requests),
        rate: field("Requests/sec:").and_then(|rate| rate.parse().ok()),
        p50: field("50%").and_then(microseconds),
        p99: field("99%").and_then(microseconds),
        longest: longest.and_then(microseconds),
        ..Sample::default()
    })
}

/// A time of wrk's.
fn microseconds(text: &str) -> Option<f64> {
    let (number, factor) = [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}
