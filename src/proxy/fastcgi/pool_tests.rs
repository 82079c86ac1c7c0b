//! Which connection is used while a PHP process works on after its answer.

use super::responder_tests::{STDIN, World, turn};
use crate::proxy::fixture::{empty, read};

#[tokio::test]
async fn a_process_that_works_on_after_its_answer_is_not_waited_for() {
    let world = World::new(2);
    let serve = async {
        let mut working = world.accept().await;
        working.begin().await;
        working.answer("A: b\n\n1").await;
        let mut other = world.accept().await;
        other.request().await.expect("a request");
        other.answer("A: b\n\n2").await;
        // Its process comes back.
        assert_eq!(working.record().await, Some((STDIN, vec![])));
        assert_eq!(
            working.record().await,
            None,
            "closed, so that the process can serve others"
        );
        other.request().await.expect("a request");
        other.answer("A: b\n\n3").await;
    };
    let ask = async {
        for expected in ["1", "2", "3"] {
            let response = world.post(empty()).await.expect("answered");
            assert_eq!(read(response.into_body()).await.expect("whole"), expected);
        }
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn a_connection_waits_for_its_process_where_there_are_enough_of_them() {
    let world = World::with(2, 2);
    let serve = async {
        let mut working = world.accept().await;
        working.begin().await;
        working.answer("A: b\n\n1").await;
        let mut other = world.accept().await;
        other.request().await.expect("a request");
        assert_eq!(working.record().await, Some((STDIN, vec![])));
        other.answer("A: b\n\n2").await;
        assert_eq!(turn(&mut other).await, turn(&mut working).await);
    };
    let ask = async {
        for _ in 0..2 {
            world.get().await.expect("answered");
        }
        let (one, two) = tokio::join!(world.get(), world.get());
        assert!(one.is_ok() && two.is_ok(), "without another connection");
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn an_older_connection_is_used_while_the_newest_one_s_process_works() {
    let world = World::new(2);
    let serve = async {
        let (mut older, mut newest) = (world.accept().await, world.accept().await);
        older.request().await.expect("a request");
        newest.begin().await;
        older.answer("A: b\n\n").await;
        newest.answer("A: b\n\n").await;
        older.request().await.expect("a request");
        older.answer("A: b\n\n").await;
        (older, newest)
    };
    let ask = async {
        let (one, two) = tokio::join!(world.get(), world.get());
        assert!(one.is_ok() && two.is_ok());
        world.get().await.expect("answered");
    };
    let (_peers, ()) = tokio::join!(serve, ask);
    assert_eq!(world.php.counts().idle, 2, "the newest stays");
}
