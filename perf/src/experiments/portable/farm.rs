//! The web servers: an nginx in each of the lab's servers that answers so many requests a second and
//! no more, as a machine does that has other pods as well.

use crate::reading::{NetFile, Reading, data_segments};
use crate::site::START;
use anyhow::{Context, Result};
use lockstep_tests::lab::{Lab, Netns, Process, Server, wait_until};
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the service is, as in the seed's table 4.1.
pub const PORT: u16 = 8888;
/// Bytes in a header line of each request, and in one of each answer. With them, a request and its
/// answer take 636 bytes of an Ethernet link, and the answer 450 of them: the seed's pages 44 and 46.
const PADDING: (usize, usize) = (40, 190);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The servers' programs.
#[derive(Debug)]
pub struct Farm {
    servers: Vec<(NetFile, Process)>,
}

impl Farm {
    /// Starts one on each server, for so many requests a second each.
    pub fn start(lab: &Lab, requests_per_second: u32) -> Result<Self> {
        let servers: Result<Vec<_>> = (lab.servers.iter())
            .map(|server| start(lab.run().dir(), server, requests_per_second))
            .collect();
        let mut farm = Farm { servers: servers? };
        for ((_, process), server) in farm.servers.iter_mut().zip(&lab.servers) {
            let at = (server.v4(), PORT).into();
            wait_until("a web server answers", START, || {
                process.must_run()?;
                Ok(answers(server.netns(), at).then_some(()))
            })?;
        }
        Ok(farm)
    }

    /// The requests that all of them have answered since they started, and when that was so.
    ///
    /// An answer is one segment, and the kernel counts these in each server's namespace. To ask nginx
    /// itself would mean to wait for each of them on a CPU that is full.
    pub fn requests(&self) -> Result<Reading<u64>> {
        let of = |(netstat, _): &(NetFile, Process)| {
            data_segments(&netstat.read()?).context("the kernel does not count segments with data")
        };
        Reading::make(|| self.servers.iter().map(of).sum())
    }
}

/// A script for wrk that asks with the padding.
pub fn script(lab: &Lab) -> Result<PathBuf> {
    let file = lab.run().dir().join("padding.lua");
    let text = format!("wrk.headers[\"X-Padding\"] = \"{}\"\n", padding());
    fs::write(&file, text).context("cannot write a script for wrk")?;
    Ok(file)
}

/// What stands in each request's header line.
pub fn padding() -> String {
    "x".repeat(PADDING.0)
}

/// Whether a request is answered.
pub fn answers(from: &Netns, at: SocketAddr) -> bool {
    let ask = || -> Result<String> {
        let mut stream = from.connect(at, ANSWER)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|text| text.contains(" 200 OK"))
}

fn start(dir: &Path, server: &Server, requests_per_second: u32) -> Result<(NetFile, Process)> {
    let name = server.name();
    let address = server.v4().to_string();
    let text = config(dir, &name, &address, requests_per_second);
    let file = dir.join(format!("{name}-web.conf"));
    fs::write(&file, text)?;
    let mut command = server.netns().command("nginx");
    command.arg("-e").arg(dir.join(format!("{name}-web.err")));
    command.arg("-c").arg(&file);
    let netstat = NetFile::open(server.netns(), "netstat")?;
    Ok((netstat, server.netns().spawn("web", command)?))
}

/// A connection ends after 100 requests, and the answer is the server's address: both as in the seed.
/// What is more than the limit waits.
///
/// `return` alone would answer before the limit is looked at; `try_files` comes after it.
fn config(dir: &Path, name: &str, address: &str, limit: u32) -> String {
    let dir = dir.display();
    let padding = "x".repeat(PADDING.1);
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {dir}/{name}-web.pid;\n\
         events {{ worker_connections 8192; }}\nhttp {{\n  access_log off;\n  \
         client_body_temp_path {dir}/{name}-body;\n  proxy_temp_path {dir}/{name}-proxy;\n  \
         fastcgi_temp_path {dir}/{name}-fastcgi;\n  uwsgi_temp_path {dir}/{name}-uwsgi;\n  \
         scgi_temp_path {dir}/{name}-scgi;\n  \
         keepalive_requests 100;\n  keepalive_timeout 300;\n  default_type text/plain;\n  \
         open_file_cache max=10 inactive=1h;\n  open_file_cache_valid 1h;\n  \
         open_file_cache_errors on;\n  \
         limit_req_zone $server_port zone=all:1m rate={limit}r/s;\n  limit_req_log_level info;\n  \
         server {{\n    listen {PORT} backlog=4096;\n    limit_req zone=all burst=10000;\n    \
         location / {{ try_files /none @answer; }}\n    \
         location @answer {{ add_header X-Padding {padding}; return 200 {address}; }}\n  }}\n}}\n"
    )
}
