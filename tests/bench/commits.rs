//! Changes of names without a mount, beside etcd's puts.

use anyhow::Result;

use crate::figures::Figure;
use crate::measures::Sizes;
use crate::places::Places;

/// By 1, 8 and 64 callers.
pub fn library(places: &mut Places, sizes: &Sizes) -> Result<Vec<Figure>> {
    let rounds = [
        ("library: create, by 1", 1, sizes.names),
        ("library: create, by 8", 8, sizes.names_by_eight),
        ("library: create, by 64", 64, sizes.library),
    ];
    let mut figures = Vec::new();
    for (name, callers, count) in rounds {
        let puts = places.etcd(callers, count)?;
        let folder = format!("library-{callers}");
        let side = places.library()?.creates(&folder, callers, count)?;
        figures.push(Figure::beside_etcd(name, count, puts, side));
    }
    Ok(figures)
}
