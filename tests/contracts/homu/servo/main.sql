CREATE TABLE pull (repo TEXT NOT NULL, num INTEGER NOT NULL, status TEXT NOT NULL, merge_sha TEXT, title TEXT, body TEXT, head_sha TEXT, head_ref TEXT, base_ref TEXT, assignee TEXT, approved_by TEXT, priority INTEGER, try_ INTEGER, try_choose TEXT, rollup INTEGER, delegate TEXT, UNIQUE (repo, num));
CREATE TABLE build_res (repo TEXT NOT NULL, num INTEGER NOT NULL, builder TEXT NOT NULL, res INTEGER, url TEXT NOT NULL, merge_sha TEXT NOT NULL, UNIQUE (repo, num, builder));
CREATE TABLE mergeable (repo TEXT NOT NULL, num INTEGER NOT NULL, mergeable INTEGER NOT NULL, UNIQUE (repo, num));
CREATE TABLE repos (repo TEXT NOT NULL, treeclosed INTEGER NOT NULL, UNIQUE (repo));

INSERT INTO pull (repo, num, status, merge_sha, title, body, head_sha, head_ref, base_ref, assignee, approved_by, priority, try_, rollup, delegate) VALUES
    ('alpha', 1, 'pending', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'One & only <b>', 'The text of one.', '1111111111111111111111111111111111111111', 'contributor:one', 'master', '', 'rita', 0, 0, 0, ''),
    ('alpha', 2, 'pending', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'pending (try) is only its title', NULL, '2222222222222222222222222222222222222222', 'contributor:two', 'master', '', '', 0, 1, 0, ''),
    ('alpha', 3, '', '', 'Three', 'The text of three.', '3333333333333333333333333333333333333333', 'contributor:three', 'master', '', 'rita', 7, 0, 0, ''),
    ('alpha', 4, 'failure', 'dddddddddddddddddddddddddddddddddddddddd', 'Four', '', '4444444444444444444444444444444444444444', 'contributor:four', 'master', 'rita', 'rita', 5, 0, 0, ''),
    ('alpha', 5, '', '', 'Five', '', '5555555555555555555555555555555555555555', 'contributor:five', 'master', '', '', 0, 0, 0, '');
UPDATE pull SET try_choose = 'wpt' WHERE num = 2;
INSERT INTO build_res VALUES
    ('alpha', 1, 'linux', 1, 'http://buildbot.example.org/builders/linux/builds/41', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'),
    ('alpha', 1, 'mac', NULL, 'http://buildbot.example.org/builders/mac/builds/17', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'),
    ('alpha', 4, 'mac', 0, 'http://buildbot.example.org/builders/mac/builds/16', 'dddddddddddddddddddddddddddddddddddddddd');
INSERT INTO repos VALUES ('alpha', 10);
