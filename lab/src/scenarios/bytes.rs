//! An independent client: sg3-utils in a machine show the bytes that firmware traces show.

use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("a")?;
    let a = cluster.host("a")?;
    let disk = a.disk("d3")?;
    Ok(())
}
