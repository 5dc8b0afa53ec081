//! Directories: which are taken, and what is said of those that are not.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use gateway::database::embedded::{Embedded, EmbeddedError};

use super::{Gateway, our_uid, place};

#[tokio::test]
async fn a_directory_too_deep_for_a_socket_works_and_can_be_joined() {
    let (place, _) = place();
    let data = place.path().join("d".repeat(120));
    let embedded = Embedded::start(&data).await.unwrap();
    let socket = fs::read_link(data.join("socket")).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o700);
    let mut joiner = Gateway::spawn(&data, "join");
    assert_eq!(Some(joiner.postmaster()), embedded.postmaster_pid());
    joiner.stop();
    embedded.stop().await.unwrap();

    let again = Embedded::start(&data).await.unwrap();
    assert_eq!(fs::read_link(data.join("socket")).unwrap(), socket);
    again.stop().await.unwrap();

    // A cleaner of temporary files, and somebody who was faster to make a directory of that name.
    fs::remove_dir_all(&socket).unwrap();
    fs::create_dir(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let again = Embedded::start(&data).await.unwrap();
    let other = fs::read_link(data.join("socket")).unwrap();
    assert_ne!(other, socket);
    again.stop().await.unwrap();
    fs::remove_dir_all(&socket).unwrap();
    fs::remove_dir_all(&other).unwrap();
}

#[tokio::test]
async fn a_directory_with_an_odd_name_works() {
    let (place, _) = place();
    let data = place.path().join(r#" a, "b" $c 'd' \e;"#);
    let embedded = Embedded::start(&data).await.unwrap();
    assert!(data.join("socket/.s.PGSQL.5432").exists());
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn somebody_elses_directory_is_left_as_it_is() {
    let (place, _) = place();
    fs::write(place.path().join("letter"), "private").unwrap();
    let error = Embedded::start(place.path()).await.unwrap_err();
    assert!(error.to_string().contains("neither empty nor"), "{error}");
    let after = fs::metadata(place.path()).unwrap();
    assert_eq!((after.mode() & 0o777, after.uid()), (0o755, our_uid()));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn an_empty_directory_is_taken_once_it_is_private_as_the_error_says_how() {
    let (_place, data) = place();
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let error = Embedded::start(&data).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("mode 755"), "{said}");
    let after = fs::metadata(&data).unwrap();
    assert_eq!((after.mode() & 0o777, after.uid()), (0o755, our_uid()));
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);

    let remedy = said.split('`').nth(1).unwrap();
    let typed = Command::new("sh").args(["-c", remedy]).status().unwrap();
    assert!(typed.success(), "{remedy}");
    Embedded::start(&data).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn data_of_another_version_are_named_with_both_versions() {
    let (_place, data) = place();
    Embedded::start(&data).await.unwrap().stop().await.unwrap();
    fs::write(data.join("cluster/PG_VERSION"), "9\n").unwrap();
    let error = Embedded::start(&data).await.unwrap_err();
    assert!(
        matches!(&error, EmbeddedError::OtherVersion { version: 9, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let (_place, data) = place();
    let error = Embedded::start_with(&data, &[("shared_buffers", "much")])
        .await
        .unwrap_err();
    // Not by waiting until it is too slow.
    assert!(
        matches!(&error, EmbeddedError::NotStarted { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

#[tokio::test]
async fn root_is_told_which_directory_its_other_user_cannot_enter() {
    if our_uid() != 0 {
        return;
    }
    let (place, _) = place();
    let closed = place.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let error = Embedded::start(&closed.join("open/data"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, EmbeddedError::Unreachable { closed: named, .. } if *named == closed),
        "{error}"
    );
    assert!(!closed.join("open/data").exists());
}
