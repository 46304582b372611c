//! `make demo`: real HTTP traffic through a virtual IP, on this machine, in network namespaces of
//! its own, and then a download from replicas while one of them is killed. Ends with exit code 0 when
//! no request failed, every server has served, and what was downloaded is the file.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use lockstep_tests::lab::{
    Content, DATE_MASK, Lab, Replicated, Version, Wrk, WrkReport, interrupted, print_logs,
    wait_until, web,
};
use nix::unistd::geteuid;
use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(15);
/// Requests to wait for before the next change under load.
const MANY: u64 = 3_000;
/// Bytes of the file that is downloaded from replicas, and the VIP's port for it.
const DOWNLOAD: u64 = 512 << 20;
const REPLICATED_PORT: u16 = 8000;

const PICTURE: &str = "
                               ┌─────────────────┐
                  requests     │    balancer     │   IPIP tunnel
              ┌───────────────▶│ lockstep-engine ├───────┬──▶ s1  nginx  10.0.1.11
              │                │    lockstepd    │       ├──▶ s2  nginx  10.0.1.12
 ┌────────┐  ┌┴───────┐        └─────────────────┘       └──▶ s3  nginx  10.0.1.13
 │ client ├──┤ router │                                            │
 └────────┘  └▲───────┘        answers, past the balancer          │
              └────────────────────────────────────────────────────┘

 client 198.51.100.2    virtual IPs 203.0.113.10:80 and [2001:db8:113::10]:80
";

fn main() -> ExitCode {
    if !geteuid().is_root() {
        eprintln!(
            "The demo makes network namespaces and loads an XDP program, which needs root: \
             run `sudo make demo`."
        );
        return ExitCode::from(2);
    }
    let start = Instant::now();
    match demo() {
        Ok(()) => {
            println!(
                "\nAll of it is cleaned up. The demo took {:.0?}.",
                start.elapsed()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    heading("Lockstep: HTTP through a virtual IP to three real servers");
    println!("{PICTURE}");
    step("Building the network: namespaces, veth links, one nginx per server");
    interrupted::take_down_labs()?;
    let result = with_a_lab();
    if result.is_err() {
        interrupted::end_if_begun();
    }
    result
}

fn with_a_lab() -> Result<()> {
    let mut lab = Lab::builder().servers(4).start()?;
    let result = tour(&mut lab);
    if result.is_err() {
        print_logs(lab.run());
    }
    result
}

fn tour(lab: &mut Lab) -> Result<()> {
    start(lab)?;
    ask(lab)?;
    let link = lab.router.count_balancer(0)?;
    let mut results = Results::default();
    for (name, version) in [("IPv4", Version::V4), ("IPv6", Version::V6)] {
        step(&format!(
            "wrk: 3 seconds of load over {name}, 64 connections"
        ));
        let load = Wrk::new(version.url()).seconds(3).connections(64);
        results.measure(lab, name, |lab| Ok(vec![lab.client.wrk(&load)?]))?;
    }
    step("wrk again, a new connection for every request, while everything changes:");
    results.measure(lab, "under change", change)?;
    let answers = link.packets("answers")?;
    drop(link);

    step("lockstep status");
    show(lab, &["status"])?;
    step("lockstep explain: where does a packet of this client go, and why?");
    show(
        lab,
        &[
            "explain",
            "--from",
            "198.51.100.2:40000",
            "--to",
            "203.0.113.10:80",
        ],
    )?;
    heading("Result");
    results.print();
    println!("Packets of answers that passed the balancer: {answers}");
    results.check()?;
    ensure!(
        answers == 0,
        "answers passed the balancer: they should go to the client directly"
    );
    replicated(lab)
}

/// A download through a replicated service, whose primary is killed midway.
fn replicated(lab: &mut Lab) -> Result<()> {
    heading("Replicated sessions: one TCP connection, three servers behind it");
    let content = Content::new(lab.run(), "large", DOWNLOAD, 1)?;
    let service = Replicated::new("large", Version::V4, REPLICATED_PORT, &[0, 1, 2])
        .at_port(80)
        .with("masks", DATE_MASK);
    step("lockstep apply: a service with mode = \"replicate\" beside the others");
    let text = service.to_string();
    for line in text.trim_end().lines() {
        println!("      {line}");
    }
    lab.balancers[0].apply(&(web(&[1, 2, 3]) + &text))?;

    step("curl downloads a file; the server whose answer it gets is killed midway");
    let from = SocketAddr::new(Version::V4.vip(), REPLICATED_PORT);
    let (balancer, servers) = (&lab.balancers[0], &mut lab.servers);
    let (mut primary, mut killed) = (None, false);
    let arrived = lab.client.download(from, &content, |bytes| {
        if bytes > DOWNLOAD / 8 && primary.is_none() {
            primary = Some(balancer.session()?);
        }
        if let Some(session) = &primary
            && bytes > DOWNLOAD / 2
            && !killed
        {
            let server = &mut servers[session.primary()?];
            server.nginx()?.kill_all()?;
            killed = true;
            println!(
                "  kill -9 nginx on {}, at byte {bytes} of {DOWNLOAD}",
                server.name()
            );
        }
        Ok(())
    })?;
    println!("  sha256 of the file     {}", content.sha256());
    println!("  sha256 of what arrived {}", arrived.sha256);
    let gap = arrived.pause.as_secs_f64() * 1e3;
    println!("  the longest pause that curl saw: {gap:.1} ms");
    arrived.must_be(&content)?;
    ensure!(
        killed,
        "the download ended before its server could be killed"
    );
    balancer.wait_for_event("switched", &[])?;

    step("lockstep events");
    show(lab, &["events"])
}

fn start(lab: &mut Lab) -> Result<()> {
    step("Starting lockstep-engine (carries packets) and lockstepd (tells it where to)");
    lab.start_lockstep(&web(&[0, 1, 2]))?;
    let file = std::fs::read_to_string(lab.balancers[0].services_file())?;
    println!("  services.toml, its first service:\n");
    for line in file.lines().take_while(|line| !line.is_empty()) {
        println!("      {line}");
    }
    Ok(())
}

fn ask(lab: &Lab) -> Result<()> {
    step("curl: the same address, answered by different servers");
    for version in [Version::V4, Version::V6] {
        let names = (0..10).map(|_| Ok(lab.client.get(version.vip())?.body.trim().to_owned()));
        let names = names.collect::<Result<Vec<_>>>()?;
        println!("  curl {:<28} {}", version.url(), names.join(" "));
    }
    Ok(())
}

/// A backend more, a backend less and no daemon at all, with requests all the while.
fn change(lab: &mut Lab) -> Result<Vec<WrkReport>> {
    let load = Wrk::new(Version::V4.url())
        .seconds(8)
        .connections(32)
        .connection_per_request();
    let load = lab.client.start_wrk(&load)?;
    served(lab, 3, 0, MANY)?;
    lab.balancers[0].apply(&web(&[0, 1, 2, 3]))?;
    served(lab, 4, 3, MANY / 4)?;
    println!("  added s4: it serves");

    lab.balancers[0].cli(&["drain", "s1", "--deadline", "60s"])?;
    served(lab, 4, 1, MANY)?;
    println!("  draining s1: new connections go to the others");

    lab.balancers[0].kill_daemon()?;
    served(lab, 4, 1, MANY)?;
    println!("  kill -9 lockstepd: the engine carries on without it");

    lab.balancers[0].start_daemon()?;
    served(lab, 4, 1, MANY)?;
    println!("  started lockstepd again");
    Ok(vec![load.report()?])
}

/// Waits until the servers `from..to` have answered `more` requests together.
fn served(lab: &Lab, to: usize, from: usize, more: u64) -> Result<()> {
    let count = || Ok::<u64, anyhow::Error>(lab.requests()?[from..to].iter().sum());
    let target = count()? + more;
    let what = format!("s{} to s{to} have answered {more} more requests", from + 1);
    wait_until(&what, SOON, || Ok((count()? >= target).then_some(())))
}

fn show(lab: &Lab, args: &[&str]) -> Result<()> {
    for line in lab.balancers[0].cli_text(args)?.lines() {
        println!("{}", format!("  {line}").trim_end());
    }
    Ok(())
}

/// What the loads have shown.
#[derive(Default)]
struct Results {
    loads: Vec<(String, WrkReport, f64)>,
    served: BTreeMap<String, Vec<u64>>,
}

impl Results {
    fn measure(
        &mut self,
        lab: &mut Lab,
        name: &str,
        load: impl FnOnce(&mut Lab) -> Result<Vec<WrkReport>>,
    ) -> Result<()> {
        let (requests, packets) = (lab.requests()?, lab.balancers[0].status()?.received()?);
        let start = Instant::now();
        let reports = load(lab)?;
        let seconds = start.elapsed().as_secs_f64();
        let packets = lab.balancers[0].status()?.received()? - packets;
        for (server, (after, before)) in
            lab.servers.iter().zip(lab.requests()?.iter().zip(requests))
        {
            self.served
                .entry(server.name())
                .or_default()
                .push(after - before);
        }
        let report = reports
            .into_iter()
            .next()
            .context("a load without a report")?;
        println!("  {} requests, {} errors", report.requests, report.errors());
        self.loads
            .push((name.to_owned(), report, packets as f64 / seconds));
        Ok(())
    }

    fn print(&self) {
        let mut loads = Table::new();
        loads.load_preset(UTF8_FULL_CONDENSED);
        let heads = [
            "load",
            "requests",
            "errors",
            "requests/s",
            "50 %",
            "90 %",
            "99 %",
            "packets/s",
        ];
        loads.set_header(heads);
        for (name, report, packets) in &self.loads {
            let [p50, _, p90, p99] = report.latency.map(|time| format!("{time:.2?}"));
            loads.add_row([
                name.clone(),
                report.requests.to_string(),
                report.errors().to_string(),
                format!("{:.0}", report.rate),
                p50,
                p90,
                p99,
                format!("{packets:.0}"),
            ]);
        }
        println!("{}\n", right_aligned(loads));

        let mut servers = Table::new();
        servers.load_preset(UTF8_FULL_CONDENSED);
        let names = self.loads.iter().map(|(name, ..)| name.clone());
        let head = ["requests served by".to_owned()].into_iter().chain(names);
        servers.set_header(head.chain(["total".to_owned()]));
        for (server, counts) in &self.served {
            let counts_text = counts.iter().map(u64::to_string);
            let total = counts.iter().sum::<u64>().to_string();
            servers.add_row(
                [server.clone()]
                    .into_iter()
                    .chain(counts_text)
                    .chain([total]),
            );
        }
        println!("{}\n", right_aligned(servers));
        println!("Latencies are wrk's, packets/s is what the engine received (requests and ACKs).");
    }

    fn check(&self) -> Result<()> {
        let errors: u64 = self
            .loads
            .iter()
            .map(|(_, report, _)| report.errors())
            .sum();
        ensure!(errors == 0, "{errors} requests failed");
        for (server, counts) in &self.served {
            ensure!(
                counts.iter().sum::<u64>() > 0,
                "{server} has served nothing"
            );
        }
        Ok(())
    }
}

fn right_aligned(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn heading(text: &str) {
    println!("\n{}", bold(text));
}

fn step(text: &str) {
    println!("\n{} {}", bold("▸"), bold(text));
}

fn bold(text: &str) -> String {
    let plain = !stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    if plain {
        text.to_owned()
    } else {
        format!("\x1b[1m{text}\x1b[0m")
    }
}
