//! The sentences with their cases, by subject.

mod acls;
mod attributes;
mod directories;
mod io;
mod limits;
mod links;
mod listing;
mod lives;
mod locks;
mod modes;
mod nodes;
mod open;
mod rename;
mod space;
mod times;
mod two_mounts;
mod xattrs;

pub use libc::*;

pub use crate::actor::*;
pub use crate::raw::time;
pub use crate::run::{Case, Section, case};
pub use crate::scene::{Scene, holds, same};

/// All sections, in the order of the page.
pub const SECTIONS: &[&Section] = &[
    &open::SECTION,
    &io::SECTION,
    &space::SECTION,
    &directories::SECTION,
    &listing::SECTION,
    &links::SECTION,
    &rename::SECTION,
    &limits::SECTION,
    &nodes::SECTION,
    &modes::SECTION,
    &times::SECTION,
    &attributes::SECTION,
    &xattrs::SECTION,
    &acls::SECTION,
    &locks::SECTION,
    &lives::SECTION,
    &two_mounts::SECTION,
];

/// All cases, in the order of the page.
pub fn all() -> impl Iterator<Item = &'static Case> {
    SECTIONS.iter().flat_map(|section| section.cases)
}
