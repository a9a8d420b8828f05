//! Tests of the rules as a whole, through commands and questions alone.

mod acls;
mod against_model;
mod contents;
mod listing;
mod lists;
mod locks;
mod model;
mod names;
mod ownership;
mod replay;
mod sessions;
mod soft;
mod times;
mod transfer;
mod without_room;
mod world;
