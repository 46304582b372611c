//! Replicated sessions through the whole of Lockstep: what a client gets, and what an operator sees.

use anyhow::{Context, Result, ensure};
use lockstep_tests::lab::{Content, Lab, Replicated, Version, scenario};

const MIB: u64 = 1 << 20;

#[test]
fn scenario_a_download_through_a_replicated_service_arrives_whole() {
    scenario(&Lab::builder().servers(3), |lab| {
        let content = Content::new(lab.run(), "large", 16 * MIB + 5, 3)?;
        lab.start_lockstep(&Replicated::web(&[0, 1, 2]).to_string())?;
        let arrived = lab
            .client
            .download(Version::V4.web(), &content, |_| Ok(()))?;
        arrived.must_be(&content)
    });
}
