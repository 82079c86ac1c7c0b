//! One helper per need.

pub mod daemon;
pub mod eventually;
pub mod http;
pub mod mariadb;
