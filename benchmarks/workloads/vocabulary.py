"""English words by part of speech, roughly from common to rare.

``text`` draws from these lists with Zipf weights, so that the text has the mix of few very common
and many rare words that compressors meet in practice. The dictionary that the library ships was
made of other text; nothing here feeds it.
"""

from __future__ import annotations

from typing import Final

NOUNS: Final = tuple(
    """
time year people way day thing man world life hand part child eye woman place work week case
point government company number group problem fact money month lot right study book job word
business issue side kind head house service friend father power hour game line end member law
car city community name president team minute idea body information back parent face others
level office door health person art war history party result change morning reason research
moment air teacher force education foot boy age policy music market sense nation plan college
interest death course experience effect class control care field development role effort rate
heart drug show leader light voice wife police mind price report decision son view relationship
town road arm difference value building action season society tax director position player
record paper space ground form event official matter center couple site project activity star
table need court oil situation cost industry figure street image phone data picture practice
piece land product doctor wall patient worker news test movie north love support technology
step baby computer type attention film tree source hair organisation window culture chance
brother energy period summer plant opportunity term letter condition choice rule daughter south
husband floor campaign material population call economy hospital church risk fire future bank
west sport board subject officer rest behaviour performance top goal second bed order author
blood agency nature colour store sound movement page race concern series language response
animal factor decade article east artist scene stock career treatment approach size dog fund
media sign thought list individual quality pressure answer resource meeting disease success
cup amount ability staff character growth loss degree attack region television box training
trade deal election feeling standard bill message lawyer analysis benefit sex item section
glass skill sister professor operation crime stage authority design knowledge gun station
strategy truth song example environment leg dark attempt hotel garden kitchen guard path
weight theory feature shop agent sea debate image bag fish trip bird lake threat river bar
camera weapon stone defence surface message structure bridge track ship crowd spring corner
farm snow winter autumn island mountain coast valley village castle cathedral museum library
harbour ferry railway platform ticket luggage passport journey driver engine wheel brake tyre
fuel battery charger cable screen keyboard printer server network router database table index
query transaction ledger invoice receipt refund payment balance account customer order parcel
shipment warehouse shelf stock supplier contract clause deadline milestone estimate budget
forecast spreadsheet column figure chart diagram sketch drawing draft chapter paragraph
sentence footnote glossary appendix preface translation dialect accent grammar vocabulary
alphabet manuscript archive folder envelope stamp postcard parchment ink pencil brush canvas
pigment varnish frame gallery exhibition sculpture statue marble bronze clay pottery kiln loom
fabric cotton linen wool silk leather needle thread button zipper collar sleeve pocket jacket
coat scarf glove boot umbrella blanket pillow mattress curtain carpet lamp candle lantern torch
match stove oven kettle pan saucepan spoon fork knife plate bowl jug bottle cork barrel wine
beer cider vinegar mustard pepper salt sugar honey butter cheese cream yoghurt bread flour dough
cake biscuit pastry apple pear plum cherry peach lemon orange grape melon berry onion garlic
carrot potato tomato cabbage lettuce spinach bean lentil rice barley oat wheat harvest orchard
meadow hedge fence gate barn stable tractor plough shovel rake bucket ladder hammer nail screw
bolt wrench drill saw plank beam brick mortar plaster roof chimney gutter drain pipe valve pump
turbine generator transformer circuit fuse switch sensor antenna signal frequency wavelength
spectrum telescope microscope lens prism mirror crystal mineral granite limestone fossil
glacier volcano earthquake tide current wave storm thunder lightning rainbow drought flood
humidity temperature thermometer barometer compass map atlas globe hemisphere equator meridian
satellite orbit comet galaxy nebula telescope astronaut capsule launch rehearsal orchestra
violin trumpet drum flute choir melody rhythm chord verse chorus applause audience stage
costume script director critic review rehearsal referee whistle stadium tournament medal
trophy coach striker goalkeeper defender rower swimmer cyclist marathon sprint javelin
hypothesis experiment sample control variable measurement error average median variance
regression coefficient theorem proof lemma axiom equation polynomial matrix vector tensor
gradient threshold estimate prior posterior cluster outlier residual molecule enzyme protein
antibody vaccine symptom diagnosis therapy dosage clinic surgeon nurse pharmacist bandage
stretcher ambulance treaty embassy consul ambassador senate parliament referendum ballot
mandate amendment statute tribunal verdict appeal witness testimony jury bail mortgage pension
dividend tariff subsidy inflation currency auction broker bond yield premium liability
""".split()
)

VERBS: Final = tuple(
    """
need help work call want use look talk start turn show ask play move believe happen provide
include continue learn change watch follow stop create allow add open walk offer remember
consider appear serve die expect stay reach remain suggest raise pass require report decide
pull return explain hope develop carry thank receive join agree pick wear support end base
produce cover describe enter claim compare point visit protect answer save treat love prevent
reduce realise miss mention notice manage prepare replace review confirm check approve reject
cancel deliver collect measure estimate record compute schedule arrange discuss question
investigate examine inspect repair restore rebuild publish translate summarise illustrate
demonstrate verify challenge accept refuse delay finish complete plan design test deploy
observe monitor adjust improve simplify extend limit expand connect separate combine balance
charge refund order ship pack store label scan count sort filter rank match merge divide
multiply subtract assign remove insert update delete copy print sign attach forward archive
announce invite celebrate host guide train teach encourage praise warn threaten persuade
convince negotiate settle resolve escalate postpone abandon recover escape rescue repeat
borrow rent sail row climb descend cross approach circle wander march hurry rest camp gather
plant water harvest cook bake roast boil taste serve clean wash polish paint carve weave stitch
mend hammer weld assemble dismantle calibrate align rotate invert sample simulate predict
classify annotate tokenise compress encrypt decode validate reconcile audit invoice budget
allocate distribute delegate supervise recruit promote retire consult recommend endorse
criticise dispute clarify rephrase emphasise acknowledge appreciate regret doubt wonder
imagine invent discover explore chart trace excavate preserve exhibit donate sponsor insure
""".split()
)

ADJECTIVES: Final = tuple(
    """
new good high old great big small large different local long young important public bad early
able human late hard major better economic strong possible whole free military true federal
international full special easy clear recent certain personal open red difficult available
likely short single medical current wrong private past foreign fine common poor natural
significant similar hot dead central happy serious ready simple left physical general
environmental financial blue democratic dark various entire close legal religious cold final
main green nice huge popular traditional cultural quiet careful cheap expensive narrow broad
deep shallow steep gentle rough smooth heavy light bright dull sharp blunt wet dry damp frozen
warm cool fresh stale sweet sour bitter salty spicy ripe rotten raw tender crisp thick thin
dense sparse hollow solid liquid fragile sturdy flexible rigid loose tight rapid slow sudden
gradual frequent rare regular irregular accurate approximate precise vague obvious subtle
complete partial previous following annual monthly weekly daily temporary permanent urgent
pending overdue valid invalid duplicate missing damaged reliable stable unstable robust
efficient wasteful modern ancient medieval rural urban coastal northern southern eastern
western inland remote nearby distant adjacent parallel diagonal vertical horizontal circular
square triangular wooden metallic transparent opaque silent noisy polite rude honest cunning
generous greedy brave timid patient eager reluctant confident anxious curious indifferent
grateful jealous proud humble famous obscure wealthy modest elegant clumsy graceful awkward
experimental theoretical statistical empirical marginal cumulative residual conditional
independent redundant optional mandatory seasonal nocturnal tropical arctic volcanic fertile
barren abundant scarce tangible abstract literal ironic tragic comic lyrical
""".split()
)

ADVERBS: Final = tuple(
    """
also just now then here still even well only really already often never always perhaps soon
later again quite almost together usually recently quickly slowly carefully clearly finally
probably actually suddenly easily certainly directly exactly simply generally particularly
eventually rarely sometimes largely mostly partly roughly nearly barely deliberately quietly
politely firmly gently openly privately publicly formally briefly repeatedly gradually
automatically manually temporarily permanently separately jointly previously subsequently
occasionally seldom reluctantly gladly thoroughly hastily meanwhile nevertheless therefore
instead otherwise likewise moreover besides elsewhere abroad upstairs downstream overnight
""".split()
)

NAMES: Final = tuple(
    """
Maria James Anna Robert Elena David Sofia Daniel Laura Thomas Julia Martin Clara Peter Nora
Victor Ingrid Samuel Hannah Oliver Emilia Felix Alice Hugo Beatrice Leon Irene Walter Agnes
Oscar Miriam Conrad Judith Edgar Sylvia Magnus Teresa Anton Paula Bernard Lucia Gregor Edith
London Paris Vienna Lisbon Dublin Oslo Prague Geneva Bristol Hamburg Toronto Chicago Boston
Madrid Milan Athens Cairo Nairobi Lagos Mumbai Kyoto Seoul Sydney Auckland Lima Bogota Havana
Northwind Brightwater Ashford Kestrel Holloway Pemberton Larkspur Winslow Thornbury Calloway
""".split()
)
