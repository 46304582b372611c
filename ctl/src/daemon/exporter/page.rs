//! The daemon's own metrics. The names are part of the product: `docs/src/operations/metrics.md`
//! has the same list.

use crate::daemon::parts::Reports;
use crate::daemon::view::View;
use lockstep_ctl_core::announce::Withheld;
use lockstep_process::metrics::Page;
use std::collections::BTreeMap;

mod cluster;
mod parts;

/// The page. `answers` is whether the engine has answered just now.
pub fn write(view: &View, reports: &Reports, answers: bool) -> String {
    let mut page = Page::default();
    daemon(&mut page, view, answers);
    drains(&mut page, view);
    announcements(&mut page, view);
    parts::health(&mut page, &reports.health.borrow());
    parts::bgp(&mut page, &reports.bgp.borrow());
    parts::layer2(&mut page, &reports.layer2.borrow());
    parts::group(&mut page, &reports.group.borrow());
    cluster::kubernetes(&mut page, &reports.kubernetes.borrow());
    page.into_text()
}

fn daemon(page: &mut Page, view: &View, answers: bool) {
    page.family(
        "lockstep_daemon_info",
        "gauge",
        "1, with the daemon's version.",
    );
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.one(
        "lockstep_daemon_uptime_seconds",
        "gauge",
        "Since the daemon's start.",
        view.clock.uptime().as_secs_f64(),
    );
    page.one(
        "lockstep_daemon_engine_connected",
        "gauge",
        "1 while the engine answers the daemon.",
        u8::from(view.engine_connected && answers),
    );
    page.one(
        "lockstep_daemon_epoch",
        "gauge",
        "The last epoch that the engine is known to have in force.",
        view.epoch,
    );
    page.one(
        "lockstep_daemon_engine_refuses",
        "gauge",
        "1 while the engine does not have what it should.",
        u8::from(!view.engine_error.is_empty()),
    );
    page.family(
        "lockstep_daemon_file_error",
        "gauge",
        "1 while a file has errors and is not in force.",
    );
    for (file, error) in [
        ("services.toml", &view.file_error),
        ("lockstepd.toml", &view.config_error),
    ] {
        page.sample(&[("file", file)], u8::from(!error.is_empty()));
    }
    page.one(
        "lockstep_daemon_drained",
        "gauge",
        "1 while the whole balancer is drained.",
        u8::from(view.drained),
    );
}

fn drains(page: &mut Page, view: &View) {
    let removed = view.drains.iter().filter(|drain| drain.is_over()).count();
    page.family(
        "lockstep_drains",
        "gauge",
        "Backends that an operator drains, by what has become of them.",
    );
    page.sample(&[("state", "draining")], view.drains.len() - removed);
    page.sample(&[("state", "removed")], removed);
}

fn announcements(page: &mut Page, view: &View) {
    let mut states = BTreeMap::from(
        [
            "announced",
            "no_engine",
            "drained",
            "ending",
            "no_backend",
            "cut_off",
            "not_advertised",
        ]
        .map(|state| (state, 0)),
    );
    for withheld in view.announcements.values() {
        let state = withheld.as_ref().map_or("announced", Withheld::name);
        *states.entry(state).or_insert(0) += 1;
    }
    page.family(
        "lockstep_announcements",
        "gauge",
        "Addresses of VIPs that are announced, and those that are not, by why.",
    );
    for (state, addresses) in states {
        page.sample(&[("state", state)], addresses);
    }
}
