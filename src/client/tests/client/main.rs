//! The client against ministers that keep the real rules, over the real transport, on a network
//! within the process and with virtual time: what is lost, refused or moved on the way must not
//! show in what a program sees.

mod cluster;
mod exactly_once;
mod locks;
mod network;
mod open_files;
mod routing;
mod space;
mod storage;
mod writing;
