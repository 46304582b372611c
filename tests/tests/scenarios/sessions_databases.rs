//! Databases that are replicas: every answer once, and the same state in all that are left.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{
    Cluster, Lab, Process, Psql, RedisClient, Replicated, Version, scenario, wait_until,
};
use std::fmt::Write;
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const INCREMENTS: u64 = 100_000;
const ROWS: usize = 2_000;
/// BackendKeyData: a process id and a secret, which are of one server and one session.
const KEY_MASK: &str = r"[{ pattern = 'K\x00\x00\x00\x0c[\x00-\xff]{8}' }]";

#[test]
fn scenario_sessions_redis_replies_have_no_gap_when_the_primary_is_killed() {
    scenario(&Lab::builder(), |lab| {
        let service =
            Replicated::new("redis", Version::V4, 6379, &[0, 1, 2]).with("divergence", "\"evict\"");
        lab.start_lockstep(&service.to_string())?;
        let mut servers: Vec<Option<Process>> = Vec::new();
        for server in &lab.servers {
            servers.push(Some(server.start_redis()?));
        }
        let mut client = RedisClient::connect(lab.client.netns(), Version::V4.vip())?;
        client.increments("count", INCREMENTS, |value| {
            if value == INCREMENTS / 2 {
                kill_primary(lab, &mut servers)?;
            }
            Ok(())
        })?;
        ensure!(client.get("count")? == INCREMENTS);
        drop(client);
        ensure!(servers.iter().flatten().count() == 2);
        for (index, _) in servers.iter().enumerate().filter(|(_, s)| s.is_some()) {
            let mut one = RedisClient::connect(lab.client.netns(), Version::V4.server(index))?;
            wait_until("a survivor has counted all", SOON, || {
                Ok((one.get("count")? == INCREMENTS).then_some(()))
            })?;
        }
        Ok(())
    });
}

#[test]
fn scenario_sessions_postgres_goes_on_writing_when_the_primary_is_killed() {
    scenario(&Lab::builder(), |lab| {
        let service = Replicated::new("postgres", Version::V4, 5432, &[0, 1, 2])
            .with("masks", KEY_MASK)
            .with("divergence", "\"evict\"");
        lab.start_lockstep(&service.to_string())?;
        let cluster = Cluster::new(lab.run())?;
        let mut servers = Vec::new();
        for server in &lab.servers {
            servers.push(Some(server.start_postgres(&cluster)?));
        }
        let script = lab.run().dir().join("writes.sql");
        fs::write(&script, writes()?)?;
        let mut psql = Psql::start(lab.client.netns(), Version::V4.vip(), &script)?;
        wait_until("a part of the rows is written", SOON, || {
            let written = psql.so_far()?.matches("INSERT 0 1").count();
            Ok((written > ROWS / 4).then_some(()))
        })?;
        kill_primary(lab, &mut servers)?;
        let said = psql.finish()?;
        let written = said.matches("INSERT 0 1").count();
        ensure!(written == ROWS, "{written} rows of {ROWS} were written");
        let sum = said.lines().last().context("psql says nothing")?;
        ensure!(sum.starts_with(&format!("{ROWS}|")), "{sum}");
        for (index, _) in servers.iter().enumerate().filter(|(_, s)| s.is_some()) {
            wait_until("a survivor has all rows", SOON, || {
                let address = Version::V4.server(index);
                let own = Psql::ask(lab.client.netns(), address, SUM)?;
                Ok((own == sum).then_some(()))
            })?;
        }
        Ok(())
    });
}

const SUM: &str = "SELECT count(*), sum(v), md5(string_agg(t, '' ORDER BY id)) FROM rows";

fn writes() -> Result<String> {
    let mut script = String::from("CREATE TABLE rows (id serial PRIMARY KEY, v int, t text);\n");
    for row in 0..ROWS {
        let v = row * 7919 % 1000;
        writeln!(
            script,
            "INSERT INTO rows (v, t) VALUES ({v}, md5('{row}'));"
        )?;
    }
    writeln!(script, "{SUM};")?;
    Ok(script)
}

/// Kills the primary of the only session, with all that it has started.
fn kill_primary(lab: &Lab, servers: &mut [Option<Process>]) -> Result<()> {
    let primary = lab.balancers[0].session()?.primary()?;
    let mut killed = servers[primary].take().context("it is dead already")?;
    killed.kill_all()?;
    println!("killed s{}", primary + 1);
    Ok(())
}
