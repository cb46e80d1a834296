//! fe-php beside the php-fpm of the same PHP build: what a request costs, how fast it is, what memory it takes.
//!
//! ```text
//! make bench                                     # all cases with Debian's PHP; also bench-zts, bench-nts84
//! make bench ARGS='--only hello --rounds 15'     # some of them; --quick: fewer and shorter rounds
//! make bench ARGS='--fairness --quick'           # those that show who waits for whom, in less than 12 minutes
//! make bench ARGS='old=/path/to/another/fe-php'  # another build of fe-php beside this one
//! make bench ARGS='--before /path/to/fe-php'     # likewise; and CPU per request must not be 3 % worse than its
//! make soak                                      # a million requests: does memory or do descriptors grow?
//! ```
//!
//! Both servers have four workers, a Unix socket (unless a case says TCP), the same php.ini and extensions, OPcache,
//! and no access log. Load comes from `fe-php bench`, one thread with four connections, since php-fpm serves no more
//! connections than it has workers when they are kept alive; rows with 64 connections are for fe-php alone. Servers
//! take turns, each is first as often as last, so that what else the machine does hits all alike. Figures are medians
//! over the rounds, ratios medians of the ratios within a round. CPU is that of the server's whole process tree, from
//! its CPU clocks. Throughput and latency depend on the load generator, which shares the processors: look at CPU
//! first. The cases of `fairness.rs` load all servers alike, php-fpm with a connection for each request. The report also goes to `benches/results/`, if all cases ran.

#![allow(
    clippy::unwrap_used, // as in tests, whose servers these are
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod cases;
mod contestants;
mod fairness;
mod load;
mod machine;
mod options;
#[path = "../../src/bench/processes.rs"]
#[allow(dead_code, unused_imports)] // it is the load generator's; here the sums are used
mod processes;
mod rounds;
mod scripts;
mod soak;
mod special;
mod table;
mod through_nginx;

#[path = "../../tests/support/mod.rs"]
#[allow(unused_macros)]
mod support;

#[path = "../../tests/frontends"]
#[allow(dead_code)]
mod frontends {
    pub(crate) mod frontend;
    pub(crate) mod http;
    pub(crate) mod nginx;
}

#[path = "../../tests/applications"]
#[allow(dead_code)]
mod applications {
    pub(crate) mod browser;
    pub(crate) mod installation;
    pub(crate) mod mediawiki;
}

use std::process::ExitCode;

use cases::Case;
use options::{Mode, Options};
use scripts::Scripts;
use table::Tables;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing is measured without `make bench` or `cargo bench --bench compare`");
        return ExitCode::SUCCESS;
    }
    let result = Options::parse(&arguments).and_then(|options| match options.mode {
        Mode::Compare => compare(&options),
        Mode::Soak => soak::run(&options),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), String> {
    let cases: Vec<Case> = cases::all()
        .into_iter()
        .filter(|case| case.name.contains(&options.only))
        .filter(|case| case.kind.is_fairness() || !options.fairness)
        .collect();
    if cases.is_empty() {
        let names: Vec<String> = cases::all().into_iter().map(|case| case.name).collect();
        return Err(format!(
            "no case is called {:?}; there are: {}",
            options.only,
            names.join("; ")
        ));
    }
    let scripts = Scripts::write();
    contestants::same_php(&scripts, options)?;
    let mut table = Tables::default();
    let mut failed = Vec::new();
    for case in &cases {
        eprintln!("{} ...", case.name);
        match case.measure(&scripts, options) {
            Ok(rows) => table.add(case, &rows),
            Err(error) => {
                eprintln!("{}: {error}", case.name);
                failed.push(case.name.as_str());
            }
        }
    }
    let text = format!("{}\n{}", machine::describe(options), table.markdown());
    println!("{text}");
    if let Some(file) = options.markdown_file(failed.is_empty()) {
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        eprintln!("written to {}", file.display());
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("not measured: {}", failed.join("; ")))
    }
}
