//! Programs, versions, MOUNT, portmap, who may connect.

use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, MountError, Nfs3ConnectionBuilder, PortmapperClient};
use nfs3_types::mount::{dirpath, mountstat3};
use nfs3_types::nfs3::{GETATTR3args, Nfs3Result, nfsstat3};
use nfs3_types::xdr_codec::Opaque;
use nfs3_types::{mount, nfs3, portmap};
use tokio::net::{TcpStream, UnixStream};

use super::*;

fn path(path: &'static str) -> dirpath<'static> {
    dirpath(Opaque::borrowed(path.as_bytes()))
}

#[tokio::test]
async fn unknown_programs_versions_and_procedures_are_told_apart() {
    let world = World::start().await;
    let mut raw = world.raw().await;
    let expect = async |raw: &mut Raw, bytes: Vec<u8>, tail: &[u32]| {
        let reply = raw.ask(&bytes).await.unwrap();
        assert_eq!(reply[4..], words(&[&[1, 0, 0, 0], tail].concat()));
    };
    expect(&mut raw, call(1, 100_021, 0, &[]), &[1]).await;
    for (program, procedure) in [(nfs3::PROGRAM, 22), (mount::PROGRAM, 6), (portmap::PROGRAM, 1)] {
        expect(&mut raw, call(2, program, procedure, &[]), &[3]).await;
    }
    let mut other_version = nfs(3, 0, &[]);
    other_version[4 + 16 + 3] = 4;
    expect(&mut raw, other_version, &[2, 3, 3]).await;
    expect(&mut raw, nfs(4, 1, &words(&[64])), &[4]).await;
    expect(&mut raw, nfs(5, 0, &words(&[1])), &[4]).await;
    for program in [nfs3::PROGRAM, mount::PROGRAM, portmap::PROGRAM] {
        expect(&mut raw, call(6, program, 0, &[]), &[0]).await;
    }
}

#[tokio::test]
async fn portmap_on_the_same_port_leads_a_client_to_its_mount() {
    let world = World::start().await;
    let port = world.address.port();
    let connector = nfs3_client::tokio::TokioConnector;
    let connection = Nfs3ConnectionBuilder::new(connector, "127.0.0.1", "/portal")
        .portmapper_port(port)
        .connect_from_privileged_port(false)
        .mount()
        .await
        .unwrap();
    assert_eq!((connection.mount_port, connection.nfs3_port), (port, port));
    connection.unmount().await.unwrap();

    let stream = TcpStream::connect(world.address).await.unwrap();
    let mut client = PortmapperClient::new(TokioIo::new(stream));
    client.null().await.unwrap();
    assert!(
        client.getport(nfs3::PROGRAM, 4, portmap::IPPROTO_TCP).await.is_err(),
        "no version 4"
    );
    assert!(
        client.getport(nfs3::PROGRAM, 3, portmap::IPPROTO_UDP).await.is_err(),
        "no UDP"
    );
    assert!(
        client
            .dump()
            .await
            .unwrap()
            .iter()
            .all(|found| found.port == u32::from(port))
    );
}

#[tokio::test]
async fn only_exact_paths_are_mounted_and_the_registry_by_unix_socket_alone() {
    let world = World::start().await;
    let mut tcp = MountClient::new(TokioIo::new(TcpStream::connect(world.address).await.unwrap()));
    for (name, error) in [
        ("/portal/", mountstat3::MNT3ERR_NOENT),
        ("/portalbar", mountstat3::MNT3ERR_NOENT),
        ("/", mountstat3::MNT3ERR_NOENT),
        ("/registry", mountstat3::MNT3ERR_ACCES),
    ] {
        match tcp.mnt(path(name)).await {
            Err(MountError::Denied(found)) => assert_eq!(found as u32, error as u32, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(tcp.mnt(path("/portal")).await.unwrap().auth_flavors, [1]);
    assert_eq!(tcp.export().await.unwrap().0.len(), 1);
    assert!(tcp.dump().await.unwrap().is_empty());
    tcp.umnt(path("/portal")).await.unwrap();
    tcp.umntall().await.unwrap();
    let mut unix = MountClient::new(TokioIo::new(UnixStream::connect(&world.socket).await.unwrap()));
    assert_eq!(unix.export().await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn a_registry_handle_is_no_use_over_tcp() {
    let world = World::start().await;
    let (mut agent, registry) = world.agent().await;
    let args = GETATTR3args { object: registry };
    agent.getattr(&args).await.unwrap().unwrap();
    let denied = world.client(0).await.getattr(&args).await.unwrap();
    assert!(
        matches!(denied, Nfs3Result::Err((nfsstat3::NFS3ERR_ACCES, _))),
        "{denied:?}"
    );
}

#[tokio::test]
async fn peers_from_unprivileged_ports_may_ping_and_nothing_else() {
    let world = World::start_for(Clients::default()).await;
    let mut raw = world.raw().await;
    let too_weak = |xid| words(&[xid, 1, 1, 1, 5]);
    assert_eq!(raw.ask(&nfs(1, 0, &[])).await.unwrap()[4..], words(&[1, 0, 0, 0, 0]));
    let path = packed(&path("/portal"));
    assert_eq!(raw.ask(&call(2, mount::PROGRAM, 1, &path)).await.unwrap(), too_weak(2));
    assert_eq!(raw.ask(&nfs(3, 9, &[])).await.unwrap(), too_weak(3));
    let mut others = vec![raw];
    for _ in 1..16 {
        let mut raw = world.raw().await;
        raw.ask(&nfs(1, 0, &[])).await.unwrap();
        others.push(raw);
    }
    assert_eq!(
        world.raw().await.0.read(&mut [0; 4]).await.unwrap_or(0),
        0,
        "they take few places"
    );
    world.agent().await;
}
