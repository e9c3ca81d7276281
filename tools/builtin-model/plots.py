"""The plots: what happens, and in which words.

A plot is a list of paragraphs, each one template of the language described in
``grammar.py``. Every plot introduces a problem, lets a first attempt fail,
brings in a friend and closes with what was learned. ``topics`` say what the
story is about, in words that can follow "a fox named Pip" in a request.

Slots: the hero is ``h`` (name), ``hs`` (species), ``he him his himself``; the
friend ``f fs fhe fhim fhis``, and ``friend`` where the friend first appears.
``obj`` is the coloured ``thing``; ``elder`` a relative of the hero; ``ts`` the
species of a passer-by; the other names are self-explanatory.
"""

from __future__ import annotations

from dataclasses import dataclass


START = (
    "[One {weather} [morning|day|afternoon], {h} [went to the {place}|walked to the {place}|was playing {at} the {place}].|"
    "It was a {weather} day, and {h} was [walking|playing] {at} the {place}.]"
)
START_DAY = "[One {weather} [day|morning|afternoon],|One day, when it was {weather} outside,]"


@dataclass(frozen=True)
class Plot:
    """One plot: paragraphs of events after ``start``, and the lessons to choose from.

    ``thing`` is the key into ``grammar.THINGS`` of the thing it is about, if any;
    if ``owned``, the opening says that the hero has it.
    """

    topics: tuple[str, ...]
    paragraphs: tuple[str, ...]
    lessons: tuple[str, ...]
    thing: str | None = None
    owned: bool = False
    weather: str = "[sunny|warm|bright|fine|quiet|cloudy]"
    start: str = START
    place: str = "[garden|meadow|forest|village|market|field]"


OPENING = (
    "[[Once upon a time, there was|Once upon a time, there was|There once was|Long ago, there was] {a descr} {hs} named {h}. "
    "[{h}|{he}] lived in a [small|cosy|tiny|little] house [|with {his} {elder} ]{home}.|"
    "[Once upon a time, in|In] a [small|cosy|tiny|little] house {home}, there lived {a descr} {hs} named {h}.|"
    "{h} was {a descr} {hs}. {he} lived {home} with {his} {elder}.]"
)
LIKES = (
    "[{he} loved to [sing|read|run in the grass|look at the clouds|play outside|help others|hear old stories|dance in the rain].|"
    "Every day, {he} [played|walked] in the [garden|meadow|forest] with {his} friends.|"
    "Everyone there knew {h}, because {he} [was always singing|laughed so much|was so kind].|"
    "{he} was small, but {he} had [a big heart|big dreams|many good ideas].]"
)
WEATHER_DETAILS = {
    "sunny": "[the sun was shining, and the birds were singing.|the sky was blue from end to end.]",
    "warm": "[the air smelled of flowers.|bees were flying from flower to flower.]",
    "bright": "[the birds were singing in the trees.|the grass was shining in the sun.]",
    "fine": "[the birds were singing.|everything smelled of summer.]",
    "quiet": "[there was no sound but the wind in the trees.|everything was still.]",
    "cloudy": "[soft clouds were moving over the hills.|the sun was hiding behind the clouds.]",
    "windy": "[the leaves were dancing in the air.|the trees were bending in the wind.]",
    "grey": "[the sky was full of clouds.|the air smelled of rain.]",
    "snowy": "[everything was white and still.|the snow was soft and deep.]",
}
FEELINGS = (
    "[{his} heart was heavy.|A tear ran down {his} face.|\"This is not my day,\" {h} sighed.|{he} took a deep breath and tried to think.|"
    "\"What shall I do now?\" {h} asked {himself}.|{h} wished that somebody would help {him}.]"
)
DESCRIPTION = "[little|small|young|{trait}|{trait} little|{trait} young]"
FRIEND = "[{f} the {fs}|{f} the {fs}|{a ftrait} {fs} named {f}]"
OWNS_THING = (
    "[{h} had {a obj} that {he} loved very much.|"
    "more than anything, {h} loved {his} {obj}.|"
    "{his} best thing of all was {a obj}.|"
    "{his} {elder} had given {him} {a obj}, and {he} took it everywhere.]"
)
HOMES = (
    "near the river", "by the lake", "at the edge of the forest", "under an old oak tree", "on a green hill",
    "in a small village", "next to a big garden", "behind the mill",
)
SUBPLOT = (
    "[On the way|Soon] {he} met {a tdescr} {ts}. \"[Have you seen my {thing}?|Do you know where my {thing} is?]\" asked {h}. "
    "[\"No,\" said the {ts}, \"but [do not give up|keep looking|ask a friend to help you].\"|"
    "\"[I am sorry|No],\" said the {ts}. \"I have only seen [a white cloud|two bees|my own feet] today.\"|"
    "The {ts} was [asleep|busy] and did not answer.]"
)
CLOSINGS = (
    "That night, {h} [slept very well|fell asleep with a smile|dreamed sweet dreams].",
    "From that day on, {h} and {f} [were best friends|played together every day|always helped each other].",
    "And {h} never forgot that day.",
    "When the sun went down, {h} and {f} walked home [side by side|hand in hand|with a happy song].",
    "{h} told {his} {elder} all about it, and {his} {elder} [smiled|gave {him} a big hug|was very proud].",
    "The two friends laughed, and they ate {food} together.",
    "{h} and {f} looked at the [evening sky|stars] and were happy.",
    "And if you go there today, you may see {h} and {f} [playing|laughing] together.",
    "In the evening, {h} sang a [little|new] song about it.",
    "\"[What a day!|That was a good day!]\" said {h}, and {f} [laughed|agreed].",
)
LOST_SEARCH = (
    "{h} [looked|searched] [behind the trees|under the leaves|in the tall grass] and [behind the rocks|near the water|along the path], "
    "but {he} could not find the {thing}. {he} [felt very sad|sat down and began to cry|did not know what to do]."
)

PLOTS: dict[str, Plot] = {
    "blown_away": Plot(
        ("who lost {a obj}", "and {a obj}", "and the wind"),
        (
            "[Suddenly|All at once], a strong wind came and [took|blew away|carried off] the {obj}. "
            "It flew over the [trees|houses|hill]. \"[Oh no!|Come back!|Stop!]\" cried {h}. "
            "{he} ran after it as fast as {he} could, but the wind was [too fast|faster].",
            LOST_SEARCH + " [{subplot}|]",
            "Then {friend} [came by|came along the path]. \"[Why are you sad?|What is wrong?|Why are you crying?]\" asked {f}. "
            "\"The wind took my {thing},\" said {h}. \"[Let us look together|I will help you|Do not cry. I will help you],\" said {f}. "
            "They walked and walked until {f} looked up. \"[Look!|There it is!|I see it!]\" said {f}. "
            "The {obj} was [in a tall tree|on top of the barn|on the roof of the mill]. {f} [held {h} up|found a long stick], "
            "and {h} [pulled it down|got it down].",
            "{h} [held the {thing} tight|was so happy that {he} danced|jumped for joy]. \"Thank you, {f}!\" {he} said. "
            "\"[Next time, hold on to it|That is what friends are for|I am glad I could help],\" said {f}.",
        ),
        ("{h} learned that [a problem is smaller when two friends share it|two can find what one cannot].",
         "{h} learned that it is good to ask for help."),
        thing="flies", owned=True, weather="windy",
    ),
    "rolled_away": Plot(
        ("who lost {a obj}", "and {a obj}", "whose {obj} rolled away"),
        (
            "{h} [let go of|dropped] the {obj}, and it began to roll. It rolled down the hill, [past the gate|past the pond|over the bridge], "
            "and [into a dark cave|into a deep hole|under a big bush]. \"[Oh no!|My {thing}!]\" cried {h}.",
            "{h} tried to [reach it|get it out] with {his} [arms|hands], but [it was too far away|it was too dark to see|the way was too small]. "
            "{he} tried [again with a stick|again and again], but [the stick broke|it did not work]. {he} felt [sad|very sad|like crying].",
            "[Just then|After a while], {friend} [came by|heard {h} and came to see]. \"[What is wrong?|Can I help you?]\" asked {f}. "
            "\"My {obj} is in there, and I cannot reach it,\" said {h}. {f} thought for a moment. \"I have [an idea|a plan],\" said {f}. "
            "{f} [went home and came back with a long rope|went home and came back with a lantern|asked {h} to hold a lantern]. "
            "[Together|Working together], they [pulled|got] the {thing} out.",
            "\"You did it!\" [said|cried] {h}. \"No,\" said {f}, \"we did it.\" {h} gave {f} a big hug, "
            "and they [played|had fun] with the {obj} [until the evening|all day long].",
        ),
        ("{h} learned that [a good idea can be better than strong arms|working together makes hard things easy].",
         "{h} learned never to give up."),
        thing="rolls", owned=True, place="hill",
    ),
    "floated_away": Plot(
        ("who lost {a obj}", "and {a obj}", "and the river"),
        (
            "{h} put the {obj} down [by the river|close to the water] to [rest|pick some flowers|eat some berries]. "
            "When {he} looked again, the {thing} was in the water. It floated away, [faster and faster|far down the river]. \"[Oh no!|Wait!]\" cried {h}.",
            "{h} ran along the river and tried to catch the {thing} with a stick, but the [stick|branch] was too short. "
            "{he} could not swim, so {he} [sat down and cried|felt very sad].",
            "\"[What is wrong?|Why are you sad?]\" asked {friend}, who [was fishing|was sitting] on the bridge. "
            "\"My {obj} floated away,\" said {h}. \"[Do not worry|Do not be sad],\" said {f}. \"[I can swim very well|I have a little boat].\" "
            "{f} went [into the water|out on the river] and came back with the {obj}. It was wet, but it was not broken.",
            "\"Thank you, {f}!\" said {h}. {he} put the {thing} in the sun to dry. "
            "Then {h} and {f} [ate {food}|shared some {food}|told each other stories] by the water.",
        ),
        ("{h} learned to take better care of [{his} things|the things {he} loved].",
         "{h} learned that [everyone is good at something|a friend is worth more than any {thing}]."),
        thing="floats", owned=True, place="river",
    ),
    "dropped": Plot(
        ("who lost {a obj}", "and {a obj}", "who could not find {his} {obj}"),
        (
            "[When {h} wanted to go home|At noon|After some time], {he} put {his} hand in {his} pocket. The {obj} was gone! "
            "\"[Where is it?|Where is my {thing}?|Oh no!]\" said {h}. [There was a hole in {his} pocket.|]",
            LOST_SEARCH + " [{subplot}|]",
            "Then {he} saw {friend}. \"I lost my {obj},\" said {h}. \"[When did you see it last?|Where did you have it last?]\" asked {f}. "
            "{h} thought about it. \"I had it [at the well|at the old bridge|by the gate],\" {he} said. "
            "They went back together, step by step. [Something small was shining in the grass.|Something was shining between two stones.] It was the {obj}!",
            "{h} [laughed|smiled] and [hugged {f}|danced with {f}]. \"[You are so clever|You are a good friend],\" said {h}. "
            "At home, {h} [closed the hole in {his} pocket|put the {thing} in a safe place].",
        ),
        ("{h} learned that it helps to [stop and think|be calm and think].",
         "{h} learned that [a calm friend is a great help|small things need good care]."),
        thing="falls", owned=True,
    ),
    "broken": Plot(
        ("who broke {a obj}", "who told the truth", "and {a obj}"),
        (
            "{h} was visiting {friend}. {f} had {a obj} that was very [dear to {fhim}|old]. \"Please be careful with it,\" said {f}. "
            "But when {f} went out to get [some water|some {food}], {h} picked up the {thing}, and it fell. [Crack!|Oh no!] The {thing} was broken.",
            "{h} was afraid. {he} hid the {thing} [under the bed|behind the door|under a blanket] and said nothing. "
            "But {he} could not eat, and {he} could not play. {he} felt [bad|worse and worse].",
            "[At last|In the end], {h} told {f} the truth. \"I broke your {obj}, and I hid it,\" said {h}. \"I am so sorry.\" "
            "{f} was [sad|quiet] for a moment. Then {f} said, \"[Thank you for telling me|It was brave to tell me the truth]. "
            "[Let us try to mend it|We can mend it together].\"",
            "They worked all [afternoon|evening] with glue and [string|paint]. [When they were done|In the end], the {thing} looked [almost new|even better than before]. "
            "{f} smiled, and {h} smiled too.",
        ),
        ("{h} learned that telling the truth makes [a heavy heart light|you feel better].",
         "{h} learned that a good friend can forgive."),
        thing="breaks", start=START_DAY,
    ),
    "new_friend": Plot(
        ("who wanted a friend", "who was lonely", "who made a new friend"),
        (
            "{h} was new there, and {he} did not know anyone. {he} saw the others playing a game, but {he} was too shy to ask. "
            "[{he} stood behind a tree and watched.|{he} sat alone on a bench.]",
            "[The next day|After a while], {he} tried to [say hello|say something], but {his} voice was so [small|quiet] that nobody heard. "
            "{h} [went home and felt lonely|looked at {his} feet and felt lonely].",
            "[Then|The next morning], {friend} came up to {him}. \"Hello! I am {f},\" said {f}. \"[Do you want to play with us?|Would you like to play?]\" "
            "{h} [nodded|took a deep breath]. \"Yes, please,\" {he} said. \"My name is {h}.\" "
            "\"[What a nice name|I like your name],\" said {f}.",
            "They played [hide and seek|with a ball|in the grass] until the sun was low. [{h} laughed more than ever before.|{h} was not shy any more.] "
            "Then they shared some {food}.",
        ),
        ("{h} learned that one kind word can [start a friendship|change a day].",
         "{h} learned that every friend was a stranger once."),
    ),
    "sharing": Plot(
        ("who did not want to share", "who learned to share", "and some {food}"),
        (
            "{his} {elder} had made some {food}. It smelled [wonderful|so good]. {h} took it [outside|to the {place}] to eat it all alone. "
            "[Soon|Just then], {friend} came by. \"[That smells good|I am so hungry],\" said {f}. \"May I have [a little|some]?\"",
            "\"No,\" said {h}, \"it is mine.\" {f} [walked away|went away] with a sad face. {h} began to eat, but [it did not taste good|it was no fun to eat alone]. "
            "{he} thought of {f} and felt bad.",
            "[So {he} got up|{h} jumped up] and ran after {f}. \"[I am sorry|Please wait],\" said {h}. \"I want to share with you.\" "
            "{f} smiled, and they sat down [under a tree|on the grass|on a big stone]. {h} gave half of the {food} to {f}.",
            "Then {f} took [two apples|some berries|some nuts] out of a bag. \"[Now I can share with you, too|These are for both of us],\" said {f}. "
            "[It was the best meal they ever had.|Everything tasted better now.]",
        ),
        ("{h} learned that food tastes best when it is shared.",
         "{h} learned that sharing makes two people happy."),
        start=START_DAY,
    ),
    "storm": Plot(
        ("and the big storm", "who was caught in the rain", "on a rainy day"),
        (
            "[Then dark clouds came|Soon the sky grew dark], and it began to rain. The rain fell [harder and harder|in big drops], and there was [a loud thunder|a flash of light]. "
            "{h} was [cold|wet] and a little afraid, and home was far away.",
            "{h} tried to build a [roof|small hut] from [sticks|branches] and leaves, but the wind [blew it away|pulled it down]. "
            "{he} tried to sit under a [bush|tree], but the rain [came through|found {him} there, too].",
            "\"Over here!\" called a voice. It was {friend}, standing in [the door of a little house|front of a dry cave]. \"[Come in|Come inside], quick!\" said {f}. "
            "{h} ran [inside|in]. There was a [warm|small] fire, and {f} gave {him} a [dry|soft] blanket and some {food}.",
            "They [told stories|sang songs|played games] until the rain stopped. [Then they looked out, and there was|In the sky there was] a [big|beautiful] rainbow. "
            "\"[Look how pretty it is!|How beautiful!]\" said {h}.",
        ),
        ("{h} learned that [after the rain, the sun comes back|every storm ends].",
         "{h} learned that an open door is the best gift on a bad day."),
        weather="[grey|cloudy]",
    ),
    "dark": Plot(
        ("who was afraid of the dark", "and the dark night", "and a strange noise"),
        (
            "{h} was afraid of the dark. One {weather} [night|evening], when {he} was in bed, {he} heard a noise. Tap, tap, tap! "
            "\"[Who is there?|What is that?]\" whispered {h}. [Nobody answered.|It was very quiet.] Then it came again. Tap, tap, tap!",
            "{h} hid under the blanket and [closed {his} eyes|counted to ten], but the noise did not stop. "
            "{he} wanted to [be brave|get up], but {his} legs would not move.",
            "At last, {he} took {his} [little lantern|lamp] and opened the door. There stood {friend}, [cold and alone|who looked very small]. "
            "\"[I am afraid of the dark|I lost my way in the dark],\" said {f}. \"[May I come in?|Can I stay with you?]\" "
            "{h} was so surprised that {he} laughed. \"[Me too!|I was afraid of you!]\" {he} said.",
            "{h} made some [warm milk|tea], and they sat by the lantern and [looked at the stars|watched the moon]. "
            "With a friend, the dark was [not so dark|not scary] any more.",
        ),
        ("{h} learned that being brave means trying even when you are afraid.",
         "{h} learned that [a small light is stronger than the dark|others can be afraid, too]."),
        weather="[quiet|cold|foggy]", start="",
    ),
    "skill": Plot(
        ("who wanted to {skill}", "who learned to {skill}", "who could not {skill}"),
        (
            "{h} wanted to {skill}. All the others could do it, but {h} could not. \"[I will learn it today|Today I will try],\" {he} said. "
            "So {he} went to {skillplace} and tried.",
            "It did not go well. {h} [tried once, tried twice, and tried again|tried and tried], but [it was too hard|it went wrong every time]. "
            "[Some crows laughed at {him}.|{his} face turned red.] \"I will never learn to {skill},\" said {h}, and {he} [wanted to go home|began to cry].",
            "{friend} had seen it all. \"[Do not give up|Do not be sad],\" said {f}. \"I could not do it at first, either. [I can show you how|Let me show you].\" "
            "{f} showed {him} how to do it, slowly, step by step. They [practised|worked] every day, and every day it went a little better.",
            "[One morning|After a week], it happened. {h} could {skill}! \"[Look at me!|I can do it!]\" {he} cried. "
            "{f} [clapped and cheered|jumped for joy]. \"I knew you could do it,\" said {f}.",
        ),
        ("{h} learned that [nobody is good at everything at first|practice makes hard things easy].",
         "{h} learned that you only fail when you stop trying."),
    ),
    "lost_way": Plot(
        ("who got lost", "who lost the way home", "in the forest"),
        (
            "{h} saw a [blue|white|golden] butterfly and [followed it|ran after it], deeper and deeper into the forest. "
            "When the butterfly was gone, {h} looked around. The trees all looked the same. \"[Where am I?|Where is the path?]\" {he} said. {he} was lost.",
            "{h} [went left|walked one way], and then {he} [went right|walked the other way], but {he} always came back to the same big [stone|tree]. "
            "It was getting dark, and {he} was [tired|hungry]. {he} felt very [small|afraid].",
            "Then {he} remembered what {his} {elder} had told {him}: \"If you are lost, stay where you are and sing.\" So {h} began to sing. "
            "[Far away|Not far away], {friend} heard the song and [followed it|came running]. \"[There you are!|I found you!]\" said {f}. "
            "\"[Take my hand|Come with me]. I know the way.\"",
            "{f} [showed {him} the way by the stars|carried a lantern], and soon they saw the lights of home. "
            "{his} {elder} was waiting at the door [and hugged them both|with some {food} for both of them].",
        ),
        ("{h} learned to stay [on the path|calm when things go wrong].",
         "{h} learned that a song can be a light in the dark."),
        place="forest",
    ),
    "gift": Plot(
        ("who wanted to give a present", "and a birthday", "who made a gift"),
        (
            "It was the day before the birthday of {his} friend {f} the {fs}, and {h} had no gift. {he} looked in the shop, but [everything cost too much|{he} had no money]. "
            "\"What can I do?\" said {h}.",
            "{h} tried to bake a cake, but it [burned|fell on the floor]. {he} tried to paint a picture, but the paint was [dry|all gone]. "
            "{he} [sat down and sighed|was close to tears].",
            "An old {ts} saw {him} and said, \"The best gift is one you make with love.\" {h} had an idea. {he} [picked flowers in the meadow|found pretty stones by the river|gathered shells and leaves] "
            "and made a [crown|chain|necklace] out of them. It took {him} all night.",
            "In the morning, {h} gave it to {f}. \"[I made it for you|It is not much],\" {he} said. {f} [put it on at once|looked at it for a long time] and [smiled|had happy tears]. "
            "\"It is the best gift of all,\" said {f}, \"because you made it [yourself|for me].\"",
        ),
        ("{h} learned that a gift from the heart is worth more than gold.",
         "{h} learned that love is better than money."),
        start="",
    ),
    "seed": Plot(
        ("who planted a seed", "and a magic seed", "who grew a big flower"),
        (
            "{h} found a [small|tiny|strange] seed on the ground. {he} put it into the earth [behind the house|in the garden] and gave it some water. \"Now grow!\" said {h}. "
            "{he} waited all day, but nothing happened.",
            "The next day there was [still nothing|only brown earth]. {h} [sang to it|shouted at it|danced around it], but the seed did not grow. "
            "\"[It is a bad seed|It will never grow],\" said {h}, and {he} wanted to dig it up.",
            "\"Wait!\" said {friend}. \"A seed needs water, sun and time. [Let us take care of it together|I will help you].\" "
            "So every morning {h} brought water, and every evening {f} pulled out the weeds. [One week went by|Many days went by].",
            "Then, one morning, there was a little green leaf. It grew and grew, until it was [a tall sunflower|a big pumpkin|a beautiful rose|an apple tree]. "
            "\"[Look!|Look what we made!]\" said {h}, and everyone came to see it.",
        ),
        ("{h} learned that good things need time.",
         "{h} learned to be patient."),
    ),
    "treasure": Plot(
        ("who found a map", "and a treasure", "who looked for a treasure"),
        (
            "{h} found an old map [under a stone|in a bottle|in a book]. There was a big cross on it. \"A treasure!\" said {h}. "
            "{he} [ran|went] to {friend} and showed {fhim} the map. \"[Let us find it!|Let us go!]\" said {f}.",
            "They went over the bridge, through the forest, and up the hill. At the top they [dug a hole|began to dig], but they found only [stones|roots and stones]. "
            "\"[There is nothing here|We came for nothing],\" said {h}, and {he} [kicked a stone|sat down on the grass].",
            "{f} looked at the map again. \"Wait,\" said {f}, \"we held it the wrong way round!\" {h} turned the map, and they both laughed. "
            "They went down to the [old tree|old well|cave] and dug there. [Soon|After a while], they hit something hard. It was a wooden box!",
            "In the box there were [golden coins|shiny shells|old toys] and a letter. \"[Share this with a friend|The real treasure is the friend beside you],\" it said. "
            "{h} and {f} looked at each other and smiled. They [took half each|shared everything].",
        ),
        ("{h} learned that [the best part of a treasure is finding it together|it is good to look twice].",
         "{h} learned that a friend is the best treasure."),
    ),
    "rescue": Plot(
        ("who helped {a critter}", "who saved {a critter}", "and a little {critter}"),
        (
            "[Suddenly|Then], {he} heard a [small|tiny] voice. \"Help! Help!\" it said. {h} looked around and saw a little {critter} that had fallen into [a deep hole|the well|a dry well]. "
            "\"[Do not be afraid|Hold on],\" said {h}. \"I will get you out.\"",
            "{h} reached down, but {his} arms were too short. {he} [let down a branch|let down a stick], but it broke. The little {critter} [began to cry|was very afraid]. "
            "\"I need help,\" said {h}.",
            "So {h} ran to {friend}, who had a long rope and a basket. They [tied|put] the rope to the basket and let it down. "
            "\"[Get in|Climb into the basket]!\" called {f}. The {critter} climbed in, and the two friends pulled, one, two, three, until it was out.",
            "\"Thank you, {h}! Thank you, {f}!\" said the {critter}. [They took it home to its mother.|They gave it some {food} and took it home.] "
            "Its mother was so happy that she [cried|hugged them all].",
        ),
        ("{h} learned that nobody is too small to [help|be helped].",
         "{h} learned that it is brave to ask for help."),
    ),
    "race": Plot(
        ("who wanted to win a race", "and a big race", "who ran in a race"),
        (
            "There was a big race that day, and {h} wanted to win it. \"[I am the fastest|Nobody can beat me],\" said {h}. "
            "{friend} was in the race, too. \"[Good luck|May the best one win],\" said {f}. One, two, three, go!",
            "At first, {h} was ahead. {he} ran [past the mill|over the bridge] and looked back to laugh at the others. But {he} did not see the [stone|root] on the road, and {he} fell. "
            "[{his} foot hurt.|{his} knee hurt.] {he} tried to get up, but {he} could not. One after another, the others ran past.",
            "Only {f} stopped. \"[Are you hurt?|Can you walk?]\" asked {f}. \"[Go on|Run], you can win!\" said {h}. "
            "\"A friend is more important than a race,\" said {f}. {f} helped {him} up, and they walked [slowly|arm in arm] to the end.",
            "They were the last ones, but everyone [clapped|cheered]. {h} got a [flower|ribbon], and {he} gave it to {f}. \"[You are the real winner|You won my heart],\" said {h}.",
        ),
        ("{h} learned that being kind is better than being first.",
         "{h} learned not to laugh at others."),
    ),
    "sick": Plot(
        ("who helped a sick friend", "whose friend was sick", "who made soup"),
        (
            "{h} wanted to play with {friend}, but {f} was not there. So {h} went to {fhis} house and knocked. \"[Come in|Please come in],\" said a weak voice. "
            "{f} was in bed with a red nose. \"I am sick,\" said {f}. \"I [feel cold|cannot get up].\"",
            "\"I will make you well,\" said {h}. {he} tried to tell a joke, but {f} only coughed. {he} tried to make soup, but {he} [put in too much salt|let it burn]. "
            "\"[I am no help at all|I do everything wrong],\" said {h}.",
            "{h} ran home and asked {his} {elder}. \"[Soup needs time and love|I will show you how],\" said {his} {elder}. Together they [cut the carrots|washed the carrots], and they made a big pot of [carrot|vegetable] soup. "
            "{h} carried it to {f} [very slowly|with great care].",
            "{f} ate two bowls of soup. \"[I feel better already|That was so good],\" said {f}. {h} stayed and [read a story to {fhim}|sang a song for {fhim}], "
            "and [the next day|after two days] {f} was well again.",
        ),
        ("{h} learned that [a little care is the best medicine|it is good to ask how things are done].",
         "{h} learned that being there for a friend is a big help."),
        start=START_DAY,
    ),
    "bridge": Plot(
        ("who built a bridge", "who wanted to visit {his} {elder}", "and the broken bridge"),
        (
            "{h} wanted to visit {his} {elder} on the other side of the river. {he} had a basket with some {food}. "
            "But when {he} came to the river, the bridge was broken. \"[How can I get across?|What now?]\" said {h}.",
            "{he} tried to jump from stone to stone, but the stones were wet, and {he} [slipped|fell into the water]. "
            "{he} [climbed out|came back] with wet feet. [The basket was still dry, but {h} was sad.|\"It is too far,\" {he} said.]",
            "{friend} lived nearby and saw {him}. \"[We can build a new bridge|Let us build a bridge],\" said {f}. \"I have wood, and you have [two strong arms|good hands].\" "
            "They carried [wood|the wood] to the river, [piece by piece|one piece at a time], and tied it with rope. It was hard work.",
            "In the evening, the bridge was [done|ready]. {h} and {f} walked over it together. {his} {elder} was waiting on the other side. "
            "\"[What a fine bridge!|I am so proud of you!]\" said {his} {elder}, and they all ate the {food}.",
        ),
        ("{h} learned that two friends can build anything.",
         "{h} learned that [there is always a way|hard work is easy with a friend]."),
        start=START_DAY,
    ),
    "star": Plot(
        ("who could not sleep", "and a star", "and a fallen star"),
        (
            "One {weather} night, {h} could not sleep. {he} looked out of the window and saw a star fall from the sky. It fell [behind the hill|into the forest]. "
            "{h} [put on {his} coat|got up] and went to look for it. [In the grass|Under a tree] lay a tiny star. \"I want to go home,\" it said.",
            "{h} threw the star up as high as {he} could, but it fell down again. {he} climbed on a [big stone|tree] and tried again, but the sky was too high. "
            "The light of the star grew [weak|smaller]. {h} was [worried|sad].",
            "{he} went to {friend}, who knew [a lot about the sky|many things]. \"A star rises when it is happy,\" said {f}. \"[Let us make it laugh|Let us sing for it].\" "
            "{h} and {f} [danced|told jokes|sang] and made funny faces. The star began to laugh, and its light grew bright.",
            "[Slowly|Higher and higher], the star rose up into the sky. \"Thank you, {h}! Thank you, {f}!\" it called. "
            "Now it shines over the house of {h} every night.",
        ),
        ("{h} learned that joy can lift up [anyone|even a star].",
         "{h} learned that a happy heart is a light one."),
        weather="[quiet|clear]", start="",
    ),
    "quarrel": Plot(
        ("who had a fight with a friend", "and {a obj}", "who said sorry"),
        (
            "{h} and {his} friend {f} the {fs} found {a obj}. \"I saw it first!\" said {h}. \"No, it is mine!\" said {f}. "
            "They both pulled at the {thing}, [and they shouted at each other|and both of them grew angry]. Then {f} let go and walked away without a word.",
            "Now {h} had the {thing} all for {himself}. {he} tried to play with it, but [it was no fun|it was boring] alone. "
            "{he} tried to forget {f}, but [{he} could not|everything made {him} think of {f}].",
            "So {h} took the {thing} and went to the house of {f}. {he} knocked [softly|three times]. \"I am sorry,\" said {h}. \"You are more important than {a thing}.\" "
            "\"I am sorry, too,\" said {f}. \"[I should not have shouted|I missed you].\"",
            "They [shook hands|hugged], and {f} had an idea. \"[You can have it today, and I can have it tomorrow|Let us keep it in the garden for both of us],\" said {f}. "
            "And so they [did|did it], and they played until the moon came up.",
        ),
        ("{h} learned that saying sorry is [hard, but good|the best way to end a fight].",
         "{h} learned that a friend is worth more than {a thing}."),
        thing="rolls", start=START_DAY,
    ),
    "snowman": Plot(
        ("who built a snowman", "and a snowman", "who loved the snow"),
        (
            "{h} wanted to build the biggest snowman of all. {he} made a ball of snow and rolled it [over the field|through the snow], and it grew [bigger and bigger|as big as a house].",
            "But then the ball was too heavy. {h} pushed and pulled, but it did not move. {he} tried to lift the head, but it [fell down and broke|fell on {his} feet].",
            "{friend} was watching from the window and came out. \"[That looks hard|What a big ball],\" said {f}. \"[Let us push together.|Shall I help you?]\" "
            "One, two, three! The ball moved. {f} made the arms out of sticks, and {h} made the nose out of a carrot.",
            "\"[He looks cold|Something is missing],\" said {h}, and {he} gave the snowman {his} own {colour} scarf. "
            "The snowman [seemed to smile|looked very fine]. Then they went inside and drank warm milk.",
        ),
        ("{h} learned that big things are built by many hands.",
         "{h} learned that work is fun when it is shared."),
        weather="[snowy]",
    ),
    "wish": Plot(
        ("who made a wish", "and a wish", "who wanted to be big"),
        (
            "{h} came to an old well. \"I wish I were as big as a tree,\" said {h}. There was a flash of light, and {h} began to grow. "
            "Soon {he} was so big that {he} could look over the [roofs|hills].",
            "At first it was [fun|wonderful]. But then {he} wanted to go home, and {he} did not fit through the door. {he} wanted to play, but the others [were afraid and ran away|could not reach {him}]. "
            "{h} tried to make {himself} small, but it did not work.",
            "Only {friend} did not run away. \"[Is that you, {h}?|Why are you so big?]\" called {f}. {h} told {fhim} about the well. "
            "\"Then let us go back and wish again,\" said {f}. They went to the well, and {h} said, \"I wish I were [just me|my old self] again.\"",
            "There was a flash of light, and {h} was small again. {he} [danced with joy|hugged {f}]. \"[You are just the right size|I like you just as you are],\" said {f}.",
        ),
        ("{h} learned that it is best to be yourself.",
         "{h} learned to be careful with wishes."),
    ),
    "stranger": Plot(
        ("who met a stranger", "who was afraid of a stranger", "and a stranger"),
        (
            "People said that somebody [strange|bad] lived in the dark house behind the trees. \"Never go there,\" they said. "
            "One {weather} day, {h} was playing with a ball, and the ball [flew|rolled] into the garden of the dark house. \"Oh no!\" said {h}.",
            "{h} tried to reach the ball through the fence, but it was too far away. {he} tried with a stick, but the gate [opened|moved] with a loud noise, and {he} ran [away|behind a tree]. "
            "{his} heart was beating fast.",
            "Then the door opened, and out came {friend} with the ball. \"Is this yours?\" asked {f} with a soft voice. {h} came out from behind the tree. "
            "\"Yes,\" said {h}. \"Are you not bad?\" {f} laughed. \"No, only [shy|alone]. Nobody ever visits me.\"",
            "{h} felt sorry. \"[I will visit you|Come and play with me],\" {he} said. They played with the ball, and {f} brought out some {food}. "
            "[The next day, {h} told everyone how kind {f} was.|Soon, all the others came to play, too.]",
        ),
        ("{h} learned not to believe everything people say.",
         "{h} learned that you must meet somebody to know them."),
        start="",
    ),
    "promise": Plot(
        ("who forgot a promise", "who kept a promise", "and a promise"),
        (
            "{h} met {friend}. \"Can you help me to paint my house [this evening|tonight]?\" asked {f}. \"Yes, I promise,\" said {h}. "
            "But on the way home, {h} [saw the others playing|found some berries], and {he} forgot all about it.",
            "When {h} remembered, it was late. {he} ran to the house of {f} as fast as {he} could, but {f} had painted [half of it|one wall] alone and was [tired and sad|sitting there in the dark]. "
            "\"[You promised|I waited for you],\" said {f}. {h} tried to [explain|find good words], but there was nothing to say.",
            "{h} could not sleep that night. Before the sun came up, {he} [got up|took a brush] and went back. {he} began to paint, as quietly as {he} could. "
            "When {f} woke up and came out, {h} was [all {colour} with paint|full of paint from head to foot].",
            "{f} looked at {him} and began to laugh. \"[You look funny!|You are more {colour} than my house!]\" said {f}. They finished the work together, and the house was the prettiest of all.",
        ),
        ("{h} learned that a promise must be kept.",
         "{h} learned that it is never too late to make things good again."),
    ),
}
