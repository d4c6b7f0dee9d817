CREATE TABLE state (repo TEXT NOT NULL, num INTEGER NOT NULL, status TEXT NOT NULL, merge_sha TEXT, UNIQUE (repo, num));
CREATE TABLE build_res (repo TEXT NOT NULL, num INTEGER NOT NULL, builder TEXT NOT NULL, res INTEGER, url TEXT NOT NULL, merge_sha TEXT NOT NULL, UNIQUE (repo, num, builder));
CREATE TABLE mergeable (repo TEXT NOT NULL, num INTEGER NOT NULL, mergeable INTEGER NOT NULL, UNIQUE (repo, num));

INSERT INTO state VALUES ('alpha', 1, 'pending', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa');
-- 0.2.0 keeps no commit of a try build.
INSERT INTO state VALUES ('alpha', 2, 'pending', NULL);
INSERT INTO state VALUES ('alpha', 3, '', '');
INSERT INTO state VALUES ('alpha', 4, 'failure', 'dddddddddddddddddddddddddddddddddddddddd');
INSERT INTO state VALUES ('alpha', 5, '', NULL);
INSERT INTO build_res VALUES ('alpha', 1, 'linux', 1, 'http://buildbot.example.org/builders/linux/builds/41', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa');
INSERT INTO build_res VALUES ('alpha', 1, 'mac', NULL, 'http://buildbot.example.org/builders/mac/builds/17', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa');
INSERT INTO build_res VALUES ('alpha', 4, 'mac', 0, 'http://buildbot.example.org/builders/mac/builds/16', 'dddddddddddddddddddddddddddddddddddddddd');
INSERT INTO mergeable VALUES ('alpha', 3, 1);
