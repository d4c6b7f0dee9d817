-- A journal as version 1 wrote it: a sighting, an act that ended, an open intent. Record 2 was pruned,
-- 6 was undone, and so was 9 at the end.
PRAGMA application_id = 0x43497764;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE clock (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    watched_ms INTEGER NOT NULL,
    wall_ms    INTEGER NOT NULL
) STRICT;

CREATE TABLE record (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    watched_ms INTEGER NOT NULL,
    wall_ms    INTEGER NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('sighting', 'intent', 'outcome', 'closed')),
    intent     INTEGER,
    target     TEXT NOT NULL,
    attempt    TEXT,
    repo       TEXT NOT NULL,
    pull       INTEGER,
    body       TEXT NOT NULL,
    CHECK (CASE kind
        WHEN 'sighting' THEN intent IS NULL
        WHEN 'intent' THEN intent IS seq
        ELSE intent IS NOT NULL AND intent < seq
    END)
) STRICT;
CREATE INDEX record_place ON record (repo, pull);
CREATE INDEX record_intent ON record (intent) WHERE intent IS NOT NULL;
CREATE INDEX record_sighting ON record (target, seq) WHERE kind = 'sighting';

CREATE TABLE open_intent (
    target TEXT PRIMARY KEY,
    seq    INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;

CREATE TRIGGER record_is_never_changed BEFORE UPDATE ON record BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;
CREATE TRIGGER record_is_never_deleted BEFORE DELETE ON record
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE key = 'deleting') BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;
CREATE TRIGGER record_is_never_replaced BEFORE INSERT ON record
WHEN EXISTS (SELECT 1 FROM record WHERE seq = NEW.seq) BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;

CREATE TRIGGER intent_needs_a_free_target BEFORE INSERT ON record
WHEN NEW.kind = 'intent' AND EXISTS (SELECT 1 FROM open_intent WHERE target = NEW.target) BEGIN
    SELECT RAISE(ABORT, 'an intent is open on this target');
END;
CREATE TRIGGER intent_opens AFTER INSERT ON record WHEN NEW.kind = 'intent' BEGIN
    INSERT INTO open_intent (target, seq) VALUES (NEW.target, NEW.seq);
END;
CREATE TRIGGER outcome_needs_an_open_intent BEFORE INSERT ON record
WHEN NEW.kind IN ('outcome', 'closed')
    AND NOT EXISTS (SELECT 1 FROM open_intent WHERE seq = NEW.intent) BEGIN
    SELECT RAISE(ABORT, 'the intent is not open');
END;
CREATE TRIGGER outcome_comes_once BEFORE INSERT ON record
WHEN NEW.kind = 'outcome'
    AND EXISTS (SELECT 1 FROM record WHERE intent = NEW.intent AND kind = 'outcome') BEGIN
    SELECT RAISE(ABORT, 'the intent has its outcome');
END;
CREATE TRIGGER closing_closes AFTER INSERT ON record WHEN NEW.kind = 'closed' BEGIN
    DELETE FROM open_intent WHERE seq = NEW.intent;
END;

CREATE TRIGGER open_intent_is_never_changed BEFORE UPDATE ON open_intent BEGIN
    SELECT RAISE(ABORT, 'an open intent only ends by its closing');
END;
CREATE TRIGGER open_intent_ends_by_its_closing BEFORE DELETE ON open_intent
WHEN NOT EXISTS (SELECT 1 FROM record WHERE intent = OLD.seq AND kind = 'closed')
    AND NOT EXISTS (SELECT 1 FROM meta WHERE key = 'deleting') BEGIN
    SELECT RAISE(ABORT, 'an open intent only ends by its closing');
END;
CREATE TRIGGER open_intent_needs_its_record BEFORE INSERT ON open_intent
WHEN EXISTS (SELECT 1 FROM open_intent WHERE target = NEW.target OR seq = NEW.seq)
    OR NOT EXISTS (
        SELECT 1 FROM record
        WHERE seq = NEW.seq AND kind = 'intent' AND target = NEW.target
    )
    OR EXISTS (SELECT 1 FROM record WHERE intent = NEW.seq AND kind = 'closed') BEGIN
    SELECT RAISE(ABORT, 'an intent is open on this target, or has no record, or is closed');
END;

INSERT INTO meta VALUES ('created_ms', 1700000000000), ('schema_version', 1);
INSERT INTO clock VALUES (1, 500, 1700000000900);
INSERT INTO record VALUES (1, 1, 1700000000001, 'sighting', NULL, '["sighting","homu","servo",7,"auto"]', NULL, 'servo', 7, '{"record":"sighting","build":{"key":{"bot":"homu","repo":"servo","pull":7,"kind":"auto"},"generation":1},"merge_sha":"0123456789abcdef0123456789abcdef01234567","head_sha":null,"at":1,"cause":"first","before":["17"]}');
INSERT INTO record VALUES (3, 30, 1700000000003, 'intent', 3, '["retry","homu","servo",7,"auto"]', 'homu:servo:7:auto:1:rerun:1', 'servo', 7, '{"record":"intent","id":3,"at":30,"intent":{"attempt":{"target":{"build":{"key":{"bot":"homu","repo":"servo","pull":7,"kind":"auto"},"generation":1}},"remedy":"rerun","ordinal":1},"step":{"step":"retry","pull":7},"verdict":"no_show","evidence":["the whole history has no run of 0123456"],"merge_sha":null,"head_sha":"89abcdef","runs":[],"zones":[],"lost_workers":[],"by":null}}');
INSERT INTO record VALUES (4, 31, 1700000000004, 'outcome', 3, '["retry","homu","servo",7,"auto"]', 'homu:servo:7:auto:1:rerun:1', 'servo', 7, '{"record":"outcome","id":3,"at":31,"outcome":{"outcome":"unanswered","detail":"no answer"}}');
INSERT INTO record VALUES (5, 32, 1700000000005, 'closed', 3, '["retry","homu","servo",7,"auto"]', 'homu:servo:7:auto:1:rerun:1', 'servo', 7, '{"record":"closed","id":3,"at":32,"closing":"effect"}');
INSERT INTO record VALUES (7, 70, 1700000000007, 'intent', 7, '["retry","homu","servo",8,"auto"]', 'homu:servo:8:auto:1:rerun:1', 'servo', 8, '{"record":"intent","id":7,"at":70,"intent":{"attempt":{"target":{"build":{"key":{"bot":"homu","repo":"servo","pull":8,"kind":"auto"},"generation":1}},"remedy":"rerun","ordinal":1},"step":{"step":"retry","pull":8},"verdict":"no_show","evidence":["the whole history has no run of 0123456"],"merge_sha":null,"head_sha":"89abcdef","runs":[],"zones":[],"lost_workers":[],"by":null}}');
UPDATE sqlite_sequence SET seq = 9 WHERE name = 'record';
