package fileaudit

import "testing"

func TestEveryWayProvesSomething(t *testing.T) {
	for w := byReadingAlike; w <= bySending; w++ {
		if ways[w].evidence == "" {
			t.Errorf("way %d has no evidence", w)
		}
	}
	if n := int(bySending) + 1; len(ways) != n {
		t.Errorf("%d ways, want %d", len(ways), n)
	}
}

func TestHowACopyIsKnown(t *testing.T) {
	tests := []struct {
		name    string
		read    read
		written written
		kin     kin
		want    way
	}{
		{"the same in all", read{name: "a", size: 100, sum: 1}, written{name: "a", size: 100, sum: 1}, itself, byReadingAlike},
		{"under another name", read{name: "a", size: 100, sum: 1}, written{name: "b", size: 100, sum: 1}, itself, byReadingAlike},
		{"name and size, content unknown", read{name: "a", size: 100}, written{name: "a", size: 100, sum: 1}, itself, byReadingAlike},
		{"an empty file", read{name: "a"}, written{name: "a"}, itself, byReadingAlike},
		{"three bytes are alike in many files", read{name: "a", size: 3, sum: 1}, written{name: "b", size: 3, sum: 1}, itself, byReadingSized},
		{"edited", read{name: "a", size: 100, sum: 1}, written{name: "a", size: 100, sum: 2}, itself, byReadingNamed},
		{"a part", read{name: "a", size: 100, sum: 1}, written{name: "a", size: 10, sum: 2}, itself, byReadingNamed},
		{"size only", read{name: "a", size: 100}, written{name: "b", size: 100, sum: 1}, itself, byReadingSized},
		{"read by the parent", read{name: "a", size: 100, sum: 1}, written{name: "a", size: 100, sum: 1}, family, byFamilyAlike},
		{"a name that the parent read", read{name: "a", size: 100, sum: 1}, written{name: "a", size: 10, sum: 2}, family, byFamilyLoosely},
		{"through a pipe", read{name: "a", size: 100, sum: 1}, written{name: "b", size: 100, sum: 1}, partner, byContent},
		{"through a pipe, large", read{name: "a", size: 1 << 20, sum: 1}, written{name: "b", size: 1 << 20, sum: 1}, partner, bySamples},
		{"through a pipe, content unknown", read{name: "a", size: 100}, written{name: "a", size: 100, sum: 1}, partner, byPipe},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := wayOf(&tt.read, tt.written, tt.kin); got != tt.want {
				t.Errorf("got %d (%v), want %d (%v)", got, ways[got], tt.want, ways[tt.want])
			}
		})
	}
}

// What came by a doubtful way is no surer for having been copied on.
func TestConfidenceOnlySinks(t *testing.T) {
	sure := single(origin{path: "/s/a"})
	doubtful := sure.at(low)
	for _, tt := range []struct {
		found    found
		evidence string
		trust    trust
	}{
		{found{cargo: sure, way: byReadingAlike}, evidenceProcess, high},
		{found{cargo: sure, way: bySamples}, evidenceContent, medium},
		{found{cargo: doubtful, way: byReadingAlike}, evidenceProcess, low},
		{found{cargo: union([]*cargo{sure, doubtful}), way: byPacking}, evidenceArchive, low},
		{found{cargo: &cargo{origins: sure.origins, packed: true, trust: medium}, way: byReadingAlike}, evidenceArchive, medium},
	} {
		if e, got := tt.found.evidence(), tt.found.trust(); e != tt.evidence || got != tt.trust {
			t.Errorf("%+v: %s %v, want %s %v", tt.found, e, got, tt.evidence, tt.trust)
		}
	}
	if sure.trust != high {
		t.Error("a cargo is changed after it was made")
	}
}
