//! `lockstep top`: the engine's traffic as rates, live on a terminal or once as tables.

mod meter;
mod screen;
mod terminal;
mod view;

use super::output::Out;
use super::{Answer, Failure, Global, ask};
use crate::transport::Peer;
use clap::Args;
use lockstep_api::engine_client::EngineClient;
use lockstep_api::{EngineStatus, StatusRequest};
use lockstep_topology::duration;
use meter::Meter;
use screen::{Screen, Wish};
use std::io::{self, IsTerminal};
use std::time::Duration;
use terminal::Terminal;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::transport::Channel;
use view::View;

/// The shortest time between two answers: shorter ones make no rates worth reading.
const SHORTEST: Duration = Duration::from_millis(100);

/// Arguments of `lockstep top`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How often the engine is asked, such as 500ms or 2s.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Print the rates over one interval and end, as where the output is no terminal.
    #[arg(long)]
    once: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(interval) if interval >= SHORTEST => Ok(interval),
        Ok(_) => Err(format!("{} at least", duration::format(SHORTEST))),
        Err(error) => Err(error.to_string()),
    }
}

/// Shows the traffic until the user has seen enough.
pub async fn run(global: &Global, arguments: Arguments, out: &mut Out) -> Result<Answer, Failure> {
    let mut source = Source::connect(global).await?;
    let live = !arguments.once && !out.is_json();
    if live && io::stdout().is_terminal() && io::stdin().is_terminal() {
        watch(&mut source, arguments.interval).await
    } else {
        once(&mut source, arguments.interval, out).await
    }
}

async fn once(
    source: &mut Source<'_>,
    interval: Duration,
    out: &mut Out,
) -> Result<Answer, Failure> {
    let mut meter = Meter::default();
    View::new(&source.status().await?, &mut meter);
    sleep(interval).await;
    let view = View::new(&source.status().await?, &mut meter);
    out.answer(&view, || view.text())?;
    Ok(Answer::Yes)
}

/// The live screen. An engine that goes away and comes back is waited for: that is when somebody
/// looks.
async fn watch(source: &mut Source<'_>, interval: Duration) -> Result<Answer, Failure> {
    let mut meter = Meter::default();
    let mut screen = Screen::default();
    screen.show(View::new(&source.status().await?, &mut meter));
    let mut terminal = Terminal::enter()?;
    let mut due = Instant::now() + interval;
    loop {
        terminal.draw(&mut screen)?;
        tokio::select! {
            event = terminal.next() => match event.map(|event| screen.react(&event)) {
                Some(Wish::End) | None => return Ok(Answer::Yes),
                Some(Wish::GoOn) => {}
            },
            () = sleep_until(due) => {
                match source.status().await {
                    Ok(status) => screen.show(View::new(&status, &mut meter)),
                    Err(failure) => screen.fail(failure.to_string()),
                }
                due = Instant::now() + interval;
            }
        }
    }
}

/// The engine's answers, over a connection that is made anew where it broke.
struct Source<'a> {
    global: &'a Global,
    engine: Option<EngineClient<Channel>>,
}

impl<'a> Source<'a> {
    async fn connect(global: &'a Global) -> Result<Self, Failure> {
        Ok(Source {
            global,
            engine: Some(ask::engine(global).await?),
        })
    }

    async fn status(&mut self) -> Result<EngineStatus, Failure> {
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => ask::engine(self.global).await?,
        };
        let status = ask::present(Peer::Engine, engine.status(StatusRequest {})).await?;
        self.engine = Some(engine);
        Ok(status)
    }
}

#[cfg(test)]
mod tests;
