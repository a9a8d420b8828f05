//! Tests of the rules as a whole, through commands and questions alone.

mod against_model;
mod contents;
mod listing;
mod locks;
mod model;
mod names;
mod ownership;
mod replay;
mod sessions;
mod transfer;
mod world;
