//! The programs of the lab, without Lockstep: what replicas are made of answers as replicas must, and
//! what is to go wrong with them does.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    Behaviour, Cluster, Content, Direction, Fault, Lab, Psql, RedisClient, Server, TestServer,
    scenario, server_v4, wait_until,
};
use lockstep_tests::pattern::Pattern;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const MIB: u64 = 1 << 20;

#[test]
fn scenario_every_nginx_serves_the_same_file_with_the_same_headers() {
    scenario(&Lab::builder().servers(2), |lab| {
        let content = Content::new(lab.run(), "large", 64 * MIB + 5, 3)?;
        let mut heads = Vec::new();
        for server in &lab.servers {
            let arrived = lab.client.download(web(server), &content, |_| Ok(()))?;
            arrived.must_be(&content)?;
            let url = format!("http://{}/{}", server.v4(), content.path());
            let head = lab.client.netns().output("curl", &["-sSI", &url])?;
            ensure!(head.contains("ETag:"), "{head}");
            let same = head.lines().filter(|line| !line.starts_with("Date:"));
            heads.push(same.map(str::to_owned).collect::<Vec<_>>());
        }
        ensure!(heads[0] == heads[1], "{heads:?}");
        Ok(())
    });
}

#[test]
fn scenario_a_download_from_a_killed_nginx_ends_there_and_a_new_one_serves_again() {
    scenario(&Lab::builder().servers(1), |lab| {
        let content = Content::new(lab.run(), "large", 64 * MIB, 3)?;
        let server = &mut lab.servers[0];
        let (address, name) = (web(server), server.name());
        let mut killed = false;
        let arrived = lab.client.download(address, &content, |bytes| {
            if bytes > 5 * MIB && !killed {
                killed = true;
                Fault::Kill.strike(server.nginx()?, &name, &lab.router)?;
            }
            Ok(())
        })?;
        ensure!(arrived.wrong.is_none(), "{arrived:?}");
        ensure!(arrived.bytes < content.size(), "{arrived:?}");
        ensure!(arrived.must_be(&content).is_err());
        server.start_nginx()?;
        let arrived = lab.client.download(address, &content, |_| Ok(()))?;
        arrived.must_be(&content)
    });
}

#[test]
fn scenario_a_stopped_or_cut_off_nginx_goes_on_when_it_can() {
    scenario(&Lab::builder().servers(1), |lab| {
        let content = Content::new(lab.run(), "large", 64 * MIB, 3)?;
        let server = &mut lab.servers[0];
        let (address, name) = (web(server), server.name());
        for fault in [Fault::Stop, Fault::Cut] {
            let mut struck = false;
            let arrived = lab.client.download(address, &content, |bytes| {
                if bytes > 5 * MIB && !struck {
                    struck = true;
                    fault.strike(server.nginx()?, &name, &lab.router)?;
                    let answers = || asks(lab.client.netns().connect(address, SOON / 20));
                    ensure!(!answers(), "a server that is {fault} answers");
                    fault.end(server.nginx()?, &name, &lab.router)?;
                    wait_until("it answers again", SOON, || Ok(answers().then_some(())))?;
                }
                Ok(())
            })?;
            arrived.must_be(&content)?;
        }
        Ok(())
    });
}

/// A server's nginx by its own address.
fn web(server: &Server) -> SocketAddr {
    SocketAddr::new(server.v4().into(), 80)
}

/// Whether an HTTP server answers on this connection, if there is one.
fn asks(stream: Result<TcpStream>) -> bool {
    let ask = || -> Result<bool> {
        let mut stream = stream?;
        stream.write_all(b"GET /same HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.ends_with("same\n"))
    };
    ask().unwrap_or(false)
}

#[test]
fn scenario_iperf3_reports_while_it_runs_in_both_directions() {
    scenario(&Lab::builder().servers(1), |lab| {
        let address = lab.servers[0].v4().into();
        let _server = lab.servers[0].start_iperf(address)?;
        for direction in [Direction::Upload, Direction::Download] {
            let mut iperf = lab.client.iperf_tcp(address, direction, 100, 2)?;
            wait_until("iperf3 reports an interval", SOON, || {
                Ok((!iperf.intervals()?.is_empty()).then_some(()))
            })?;
            let rates = iperf.finish()?;
            ensure!(
                rates.len() >= 4 && rates.iter().all(|&rate| rate > 0),
                "{direction:?}: {rates:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn scenario_redis_answers_every_pipelined_request() {
    scenario(&Lab::builder().servers(1), |lab| {
        let _redis = lab.servers[0].start_redis()?;
        let mut client = RedisClient::connect(lab.client.netns(), server_v4(0).into())?;
        let mut replies = 0;
        client.increments("count", 10_000, |value| {
            replies = value;
            Ok(())
        })?;
        ensure!(replies == 10_000 && client.get("count")? == 10_000);
        Ok(())
    });
}

#[test]
fn scenario_copies_of_a_postgres_differ_in_the_key_of_a_session_only() {
    scenario(&Lab::builder().servers(2), |lab| {
        let cluster = Cluster::new(lab.run())?;
        let mut greetings = Vec::new();
        let mut answers = Vec::new();
        let mut servers = Vec::new();
        for server in &lab.servers {
            servers.push(server.start_postgres(&cluster)?);
            let address = server.v4().into();
            greetings.push(greeting(lab, SocketAddr::new(address, 5432))?);
            let script = lab.run().dir().join("script.sql");
            fs::write(
                &script,
                "CREATE TABLE t (v int);\nINSERT INTO t VALUES (7);\n",
            )?;
            let said = Psql::start(lab.client.netns(), address, &script)?.finish()?;
            ensure!(said == "CREATE TABLE\nINSERT 0 1\n", "{said:?}");
            let statement = "SELECT v FROM t";
            answers.push(Psql::ask(lab.client.netns(), address, statement)?);
        }
        ensure!(answers == ["7", "7"], "{answers:?}");
        // BackendKeyData: 'K', its length of 12, process id and secret.
        let masked = |greeting: &[u8]| -> Result<Vec<u8>> {
            let key = greeting
                .windows(5)
                .position(|bytes| bytes == b"K\0\0\0\x0c");
            let key = key.context("a greeting without a key")?;
            println!("the key is at {key} of {}", greeting.len());
            let mut greeting = greeting.to_vec();
            greeting[key + 5..key + 13].fill(0);
            Ok(greeting)
        };
        ensure!(greetings[0] != greetings[1], "the keys are the same");
        ensure!(masked(&greetings[0])? == masked(&greetings[1])?);
        Ok(())
    });
}

/// What a PostgreSQL server says until it is ready for the first query.
fn greeting(lab: &Lab, to: SocketAddr) -> Result<Vec<u8>> {
    let mut stream = lab.client.netns().connect(to, SOON)?;
    let mut startup = vec![0, 0, 0, 0, 0, 3, 0, 0];
    startup.extend(b"user\0postgres\0database\0postgres\0\0");
    let length = startup.len() as u32;
    startup[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&startup)?;
    let mut said = Vec::new();
    // ReadyForQuery, idle.
    while !said.ends_with(b"Z\0\0\0\x05I") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        said.extend(byte);
    }
    Ok(said)
}

#[test]
fn scenario_the_test_server_does_wrong_what_it_is_told_to() {
    scenario(&Lab::builder().servers(1), |lab| {
        let pattern = Pattern::new(1);
        let mut expected = vec![0; 100_000];
        pattern.fill(0, &mut expected);
        let stream = || Behaviour::stream(100_000);
        let (got, end) = ask(lab, &stream())?;
        ensure!(got == expected && end.is_ok(), "{end:?}");

        let (got, end) = ask(lab, &stream().flip(70_000))?;
        ensure!(end.is_ok() && pattern.first_difference(0, &got) == Some(70_000));
        ensure!(pattern.first_difference(70_001, &got[70_001..]).is_none());

        let (got, end) = ask(lab, &stream().close(70_000))?;
        ensure!(end.is_ok() && got == expected[..70_000]);

        let (got, end) = ask(lab, &stream().reset(70_000))?;
        ensure!(end.is_err() && expected.starts_with(&got));

        let (got, end) = ask(lab, &stream().garbage())?;
        ensure!(end.is_ok() && pattern.first_difference(0, &got) == Some(0));

        let (got, end) = ask(lab, &Behaviour::echo())?;
        ensure!(end.is_ok() && got == b"hello");

        let (got, end) = ask(lab, &Behaviour::sink())?;
        let sum: String = (Sha256::digest(b"hello").iter())
            .map(|byte| format!("{byte:02x}"))
            .collect();
        ensure!(end.is_ok() && got == format!("5 {sum}\n").as_bytes());

        let (got, end) = ask(lab, &Behaviour::echo().never_read())?;
        ensure!(got.is_empty() && end.is_err(), "{end:?}");
        Ok(())
    });
}

/// What a test server answers to `hello` and FIN, and how that ends.
fn ask(lab: &Lab, how: &Behaviour) -> Result<(Vec<u8>, std::io::Result<usize>)> {
    let address = server_v4(0).into();
    let server = lab.servers[0].start_test_server(address, how)?;
    let to = SocketAddr::new(address, TestServer::PORT);
    let mut stream = lab.client.netns().connect(to, SOON / 20)?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    let mut got = Vec::new();
    let end = stream.read_to_end(&mut got);
    drop(server);
    Ok((got, end))
}
