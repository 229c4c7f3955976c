package fileaudit

import "slices"

// The sekisho.copy.evidence of this package.
const (
	evidenceProcess = "same-process" // the process that wrote is known to have read the source, or was told to
	evidenceContent = "content"      // samples of both are alike
	evidenceRename  = "rename"       // the file itself was moved
	evidenceArchive = "archive"      // the source lies in it
)

// trust is how sure it is that a file is a copy of what it is told to be of; the
// names are sekisho.copy.confidence.
type trust uint8

const (
	low    trust = iota // fits, and so may other files
	medium              // one explanation stands out, not all of it was seen
	high                // seen as a whole
)

func (t trust) String() string { return [...]string{"low", "medium", "high"}[t] }

// way is how it is known what a file is a copy of.
type way uint8

const (
	byReadingAlike  way = iota // its process read a file that is alike: the same content, or name and size
	byReadingNamed             // its process read a file of its name, of another size or content: a part, or edited
	byReadingSized             // its process read a file of its size, whose content is not known
	byReadingParts             // its process, which packs, splits or joins, read the file meanwhile
	byFamilyAlike              // as byReadingAlike, of the parent or a child
	byFamilyLoosely            // the parent or a child read a file of its name or of its size
	byPipe                     // as byFamilyLoosely, of a program started together with it, of the same size
	byArguments                // the program was told to copy a file of this size
	byArgumentsOnly            // the program was told to copy a file that cannot be compared
	byContent                  // a file known to have the same content, all of it looked at
	bySamples                  // the same, looked at in three places
	byPacking                  // a program that packs made it of what it read meanwhile
	byPackingOther             // any other program made an archive, of what it read meanwhile
	byMoving                   // the kernel told that it was moved
	bySending                  // a program that sends files read it
)

// ways says of each way what it proves. A copy of what is itself a copy is no
// surer than that was, and what holds an archive has the evidence of archives.
var ways = [...]struct {
	evidence string
	trust    trust
}{
	byReadingAlike:  {evidenceProcess, high},
	byReadingNamed:  {evidenceProcess, medium},
	byReadingSized:  {evidenceProcess, medium},
	byReadingParts:  {evidenceProcess, medium},
	byFamilyAlike:   {evidenceProcess, medium},
	byFamilyLoosely: {evidenceProcess, low},
	byPipe:          {evidenceProcess, low},
	byArguments:     {evidenceProcess, high},
	byArgumentsOnly: {evidenceProcess, medium},
	byContent:       {evidenceContent, high},
	bySamples:       {evidenceContent, medium},
	byPacking:       {evidenceArchive, medium},
	byPackingOther:  {evidenceArchive, low},
	byMoving:        {evidenceRename, high},
	bySending:       {evidenceProcess, medium},
}

// kin is what a reader is to the process that wrote.
type kin uint8

const (
	itself  kin = iota
	family      // its parent or a child
	partner     // in a pipe, as far as that can be seen
)

// wayOf is how a file that was written is known to be a copy of one that was read.
func wayOf(x *read, f written, k kin) way {
	same := x.sum != 0 && x.sum == f.sum
	alike := same && f.size >= minSize || x.name == f.name && x.size == f.size && (same || x.sum == 0 || f.sum == 0)
	switch {
	case k == partner && same: // a command after the other looks like a pipe
		return byLook(f.size)
	case k == partner:
		return byPipe
	case k == family && alike:
		return byFamilyAlike
	case k == family:
		return byFamilyLoosely
	case alike:
		return byReadingAlike
	case x.name == f.name:
		return byReadingNamed
	}
	return byReadingSized
}

// byLook is the way of samples that are alike.
func byLook(size int64) way {
	if size <= wholeSample {
		return byContent
	}
	return bySamples
}

// found is what a file is known to be a copy of.
type found struct {
	cargo   *cargo
	path    string // of the file that was copied: the origin itself, or what carries it; "" for a file made of many
	way     way
	made    bool // an archive was made, of many perhaps
	whole   bool // all of the cargo is in it, not just a file
	carried bool // what was read lies in no watched place
}

// evidence and trust are what is told of how it is known.
func (f *found) evidence() string {
	if f.cargo.packed {
		return evidenceArchive
	}
	return ways[f.way].evidence
}

func (f *found) trust() trust { return min(f.cargo.trust, ways[f.way].trust) }

// at is a cargo that is no surer than t.
func (g *cargo) at(t trust) *cargo {
	if g.trust <= t {
		return g
	}
	less := *g
	less.trust = t
	return &less
}

// leastTrust is that of the least sure of some.
func leastTrust(all []*cargo) trust {
	return slices.MinFunc(all, func(a, b *cargo) int { return int(a.trust) - int(b.trust) }).trust
}
