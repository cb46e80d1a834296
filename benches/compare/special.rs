//! Cases that are more than a load on a script.

use serde_json::Value;

use crate::contestants::{Contestant, FOUR_WORKERS, Setup};
use crate::load::{Sample, bench, errors, figures, sample};
use crate::options::Options;
use crate::rounds::{Row, take_turns};
use crate::scripts::Scripts;

pub(crate) fn owned(arguments: &[&str]) -> Vec<String> {
    arguments
        .iter()
        .map(|&argument| argument.to_owned())
        .collect()
}

/// hello with 0, 1,000 and 10,000 idle connections that have been used once. php-fpm answers none.
pub(crate) fn idle(scripts: &Scripts, options: &Options) -> Result<Vec<Row>, String> {
    const COUNTS: [&str; 3] = ["0", "1000", "10000"];

    let servers = FOUR_WORKERS.all(scripts.root(), options);
    let script = scripts.file("hello.php");
    let mut runs = Vec::new();
    let mut rows = Vec::new();
    for (place, server) in servers.iter().enumerate().skip(1) {
        for count in COUNTS {
            runs.push((place, count));
            let mut row = Row::new(&format!("{}, {count} idle", server.name));
            row.judged = count == "10000" && place == 1;
            rows.push(row);
        }
    }
    let seconds = options.seconds(0.8).to_string();
    take_turns(&mut rows, 0..options.rounds(5), |index| {
        let (place, count) = runs[index];
        let mut arguments = owned(&["-d", &seconds, "--warm-up", "500"]);
        if count != "0" {
            arguments.extend(owned(&["--idle", count, "--idle-used"]));
        }
        let report = bench(&servers[place], &script, &arguments)?;
        if report["idle"]["closed"].as_u64().unwrap_or(0) > 0 {
            return Err(format!("closed idle connections: {}", report["idle"]));
        }
        sample(&report)
    });
    let mut row = Row::new("php-fpm, 1000 idle");
    let arguments = owned(&["-n", "8", "--idle", "1000", "--timeout", "2"]);
    row.note = match bench(&servers[0], &script, &arguments) {
        Ok(report) => match errors(&report) {
            Some(text) => format!("no answer: {text}"),
            None => "answers after all".to_owned(),
        },
        Err(error) => format!("no answer: {error}"),
    };
    rows.push(row);
    Ok(rows)
}

/// The figures are those of the requests that do not sleep.
pub(crate) fn work_conserving(scripts: &Scripts, options: &Options) -> Result<Vec<Row>, String> {
    let servers = FOUR_WORKERS.all(scripts.root(), options);
    let script = scripts.file("hello.php");
    let mix = format!("20:{}", scripts.file("sleep.php"));
    let seconds = options.seconds(9.0).to_string();
    let load = |server: &Contestant, more: &[&str]| -> Result<(Sample, Value), String> {
        let mut arguments = owned(&["--rate", "100", "-c", "64", "--mix", &mix]);
        arguments.extend(owned(more));
        let report = bench(server, &script, &arguments)?;
        Ok((figures(&report, &report["scripts"][0]), report))
    };
    let mut rows = Vec::new();
    for server in &servers[1..] {
        let mut row = Row::new(&server.name);
        for _ in 0..options.rounds(2) {
            let (sample, report) = load(server, &["-d", &seconds, "--warm-up", "128"])?;
            match errors(&report) {
                Some(text) => row.note = text,
                None => row.samples.push(sample),
            }
        }
        rows.push(row);
    }
    // What happens there: four connections are served, the others wait for their end.
    let mut row = Row::new("php-fpm");
    let (sample, report) = load(&servers[0], &["-d", "4", "--timeout", "2"])?;
    row.samples.push(sample);
    row.note = errors(&report).unwrap_or_default();
    rows.push(row);
    let mut row = Row::new("php-fpm, a connection per request");
    // Another one: in the backlog of the first are the requests that nobody waits for any more.
    let server = FOUR_WORKERS.php_fpm(scripts.root());
    let (sample, report) = load(&server, &["-d", &seconds, "--no-keep-alive"])?;
    row.samples.push(sample);
    row.note = errors(&report).unwrap_or_default();
    rows.push(row);
    Ok(rows)
}

/// One server at a time, since PSS divides what both have mapped.
pub(crate) fn memory(scripts: &Scripts, options: &Options) -> Result<Vec<Row>, String> {
    const THIRTY_TWO_WORKERS: Setup = Setup {
        workers: 32,
        tcp: false,
    };

    let (script, arguments) = scripts.wiki();
    let pages = if options.quick { "200" } else { "1000" };
    let measure = |server: &Contestant| {
        let mut arguments = arguments.clone();
        // Their memory is that of workers that are warm and wait: fe-php's give some back after five seconds.
        let load = ["-n", pages, "-c", "32", "--timeout", "60", "--settle", "8"];
        arguments.extend(owned(&load));
        let mut row = Row::new(&server.name);
        match bench(server, &script, &arguments).and_then(|report| sample(&report)) {
            Ok(sample) => row.samples.push(sample),
            Err(error) => row.note = format!("failed: {error}"),
        }
        row
    };
    let root = scripts.root();
    let mut rows = vec![
        measure(&THIRTY_TWO_WORKERS.php_fpm(root)),
        measure(&THIRTY_TWO_WORKERS.fe_php(root, None)),
    ];
    for (name, program) in &options.others {
        rows.push(measure(
            &THIRTY_TWO_WORKERS.fe_php(root, Some((name, program))),
        ));
    }
    Ok(rows)
}
