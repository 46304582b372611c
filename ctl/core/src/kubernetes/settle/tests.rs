use super::*;
use crate::testing;

/// An object with one service of so many VIPs and backends, at an address of its own.
fn wanted(number: u8, created: i64, vips: usize, backends: usize) -> (Name, Wanted) {
    let name = Name::new("shop", &format!("s{number:03}"));
    let mut service = testing::service(&format!("shop/s{number:03}"), &[]);
    let address = IpAddr::from([198, 18, 0, number]);
    let ports = 1..=u16::try_from(vips).unwrap();
    let vip = |port| Vip::new(address, port, lockstep_plan::Protocol::Tcp).unwrap();
    service.vips = ports.map(vip).collect();
    let addresses = (0..backends).map(|at| {
        let [high, low] = u16::try_from(at).unwrap().to_be_bytes();
        testing::backend(&format!("10.{number}.{high}.{low}"))
    });
    service.backends = addresses.collect();
    let wanted = Wanted {
        created,
        drafts: vec![Draft {
            port: None,
            service: Arc::new(service),
        }],
        problems: Vec::new(),
    };
    (name, wanted)
}

fn names(board: &Board) -> Vec<&str> {
    let services = board.services().map(|s| s.name.as_str());
    let services = board.services().map(|s| Service::clone(s)).zip(services);
    let (all, names): (Vec<Service>, Vec<&str>) = services.unzip();
    assert_eq!(lockstep_plan::Snapshot::new(1, all).err(), None);
    names
}

#[test]
fn the_youngest_are_left_out_of_more_than_an_engine_holds_and_come_back() {
    for (vips, backends) in [(6_000, 0), (1, 0)] {
        let mut board = Board::default();
        // The oldest one has the last name.
        let all: Vec<_> = (0..3)
            .map(|n| wanted(n, -i64::from(n), vips, backends))
            .collect();
        for (name, wanted) in all.clone() {
            board.put(&name, wanted);
        }
        assert!(board.settle());
        if vips == 1 {
            assert_eq!(names(&board).len(), 3);
            continue;
        }
        assert_eq!(names(&board), ["shop/s001", "shop/s002"]);
        let problems = board.problems(&all[0].0);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].message.contains("16384 ports"), "{problems:?}");
        assert!(!board.settle());
        board.remove(&all[2].0);
        assert!(board.settle());
        assert_eq!(names(&board), ["shop/s000", "shop/s001"]);
        assert!(board.problems(&all[0].0).is_empty());
    }
}

#[test]
fn what_fits_behind_one_that_does_not_is_served() {
    let mut board = Board::default();
    // 32 of 4,096 endpoints are all that an engine holds.
    let mut all: Vec<_> = (0..32).map(|n| wanted(n, n.into(), 1, 4_000)).collect();
    all.push(wanted(32, 32, 1, 4_000));
    all.push(wanted(33, 33, 1, 1_000));
    for (name, wanted) in all.clone() {
        board.put(&name, wanted);
    }
    assert!(board.settle());
    let served = names(&board);
    assert_eq!(served.len(), 33);
    assert!(!served.contains(&"shop/s032") && served.contains(&"shop/s033"));
    assert!(
        board.problems(&all[32].0)[0]
            .message
            .contains("131072 endpoints")
    );
}
