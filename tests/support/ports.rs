//! Ports for a cluster that no other test takes.
//!
//! A span lies below the range that the kernel gives to outgoing connections: a node that is
//! started again must find its port free. The span is reserved by a UDP socket on its first
//! number, which lives as long as the reservation, goes with the process, and is in nobody's way
//! since the nodes use TCP.

use std::net::{TcpListener, UdpSocket};

/// Numbers in one span.
const SPAN: u16 = 128;
/// The first span begins here.
const FIRST: u16 = 10_240;
/// How many spans there are; the last ends below 32,768.
const SPANS: u16 = 175;

/// A reserved span of ports on the loopback address.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    _reservation: UdpSocket,
}

impl Ports {
    /// Reserves a span in which nothing listens.
    pub fn reserve() -> Ports {
        let begin = (std::process::id() % u32::from(SPANS)) as u16;
        for step in 0..SPANS {
            let base = FIRST + (begin + step) % SPANS * SPAN;
            let Ok(reservation) = UdpSocket::bind(("127.0.0.1", base)) else {
                continue;
            };
            let free =
                (base..base + SPAN).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
            if free {
                return Ports { base, _reservation: reservation };
            }
        }
        panic!("no {SPAN} free ports in a row between {FIRST} and 32768");
    }

    /// The first number of the span.
    pub fn base(&self) -> u16 {
        self.base
    }

    /// Where node `node` (from 0) listens.
    pub fn node(&self, node: usize) -> String {
        self.address(node)
    }

    /// Where the metrics of node `node` (from 0) are.
    pub fn metrics(&self, node: usize) -> String {
        self.address(16 + node)
    }

    /// A port that nothing of a cluster uses.
    pub fn spare(&self, number: usize) -> String {
        self.address(32 + number)
    }

    fn address(&self, offset: usize) -> String {
        assert!(offset < usize::from(SPAN), "a cluster of a test is small");
        format!("127.0.0.1:{}", self.base + offset as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reservations_never_overlap() {
        let one = Ports::reserve();
        let other = Ports::reserve();
        assert!(one.base().abs_diff(other.base()) >= SPAN);
    }
}
